"""Every reader on damaged files: bytes flipped, cut off, put in, taken out, repeated, numbers made large, two files joined.
A reader may give something, or raise the errors that it documents; it may not raise others, end the process, take long, or
take much memory. What is found is written to --findings, each as the file itself, for a test.

    scripts/fuzz_readers.py --inputs 1000000
"""

import contextlib
import gzip
import io
import random
import resource
import signal
import struct
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import soaking

import chaos
from chaos import virtual
from chaos.cli.given import read_config
from chaos.cli.predict import _read_numpy
from chaos.data.idx import read_idx
from chaos.data.npz import read_npz
from chaos.perfmodel import read_machine
from chaos.report import read_metrics
from chaos.training import CONFIG, METRICS, MODEL

MEMORY = 1 << 30  # bytes beyond those at the start
SLOW = 5  # seconds


def readers(folder):
    """{name: (file's name, good contents, call of a path, errors that it may raise)}."""
    train, _ = chaos.data.load("digits", size=29)
    train = train[:20]
    with virtual.Traced(folder / "trace") as runner:
        chaos.train(
            chaos.models.small(),
            train,
            epochs=2,
            workers=2,
            update="adam",
            progress=False,
            run_dir=folder / "run",
            runner=runner,
        )
    run = folder / "run"
    idx = struct.pack(">HBBIII", 0, 8, 3, 4, 5, 6) + bytes(range(120))
    made = io.BytesIO()
    np.savez(made, x_train=train.images, y_train=train.labels)
    packed = io.BytesIO()
    np.savez_compressed(packed, x_train=train.images, y_train=train.labels)
    array = io.BytesIO()
    np.save(array, train.images)
    machine = Path(chaos.perfmodel.__file__).parent / "machines" / "xeon-phi-7120p.toml"
    found = {
        "idx": ("x", [idx], read_idx, chaos.DataError),
        "idx.gz": ("x.gz", [gzip.compress(idx)], read_idx, chaos.DataError),
        "npz": ("x.npz", [made.getvalue(), packed.getvalue()], read_npz, chaos.DataError),
        "npy": ("x.npy", [array.getvalue()], _read_numpy, chaos.DataError),
        "safetensors": (MODEL, [(run / MODEL).read_bytes()], chaos.load, chaos.CheckpointError),
        "weights.npz": ("w.npz", [made.getvalue()], chaos.interop.read_weights, chaos.ChaosError),
        "metrics": (METRICS, [(run / METRICS).read_bytes()], read_metrics, chaos.CheckpointError),
        "config": (CONFIG, [(run / CONFIG).read_bytes()], lambda path: read_config(path.parent), chaos.CheckpointError),
        "trace": ("trace", [(folder / "trace").read_bytes()], lambda path: virtual.replay(path, train), chaos.TraceError),
        "machine": ("m.toml", [machine.read_bytes()], read_machine, ValueError),
    }
    with contextlib.suppress(ImportError):
        import PIL.Image

        from chaos.data.pictures import read_picture

        pictures = []
        for kind in ("png", "bmp", "gif", "jpeg", "tiff"):
            out = io.BytesIO()
            PIL.Image.fromarray(train.images[0, 0]).save(out, kind)
            pictures.append(out.getvalue())
        found["pictures"] = ("x.png", pictures, lambda path: read_picture(path, 1, (29, 29)), chaos.DataError)
    with contextlib.suppress(ImportError):
        import onnx  # noqa: F401

        chaos.models.small().to_onnx(folder / "m.onnx")
        good = (folder / "m.onnx").read_bytes()
        found["onnx"] = ("m.onnx", [good], chaos.from_onnx, (chaos.ChaosError, ValueError))
    with contextlib.suppress(ImportError):
        import torch

        torch.save({k: torch.from_numpy(v) for k, v in chaos.models.small().state_dict().items()}, folder / "w.pt")
        good = (folder / "w.pt").read_bytes()
        found["weights.pt"] = ("w.pt", [good], chaos.interop.read_weights, chaos.ChaosError)
    return found


def damaged(rng, seeds):
    """A damaged copy of one of the contents."""
    bad = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not bad:
            break
        # where formats say what follows, at the beginning and the end, more often
        at = min(int(rng.random() ** 3 * len(bad)), len(bad) - 1)
        at = len(bad) - 1 - at if rng.random() < 0.2 else at
        what = rng.randrange(7)
        if what == 0:
            bad[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            bad[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif what == 2:
            del bad[at:]
        elif what == 3:
            bad[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif what == 4:
            del bad[at : at + rng.randrange(1, 50)]
        elif what == 5:
            size = rng.choice((2, 4, 8))
            number = rng.choice((0, 1, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1))
            bad[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
        else:
            other = rng.choice(seeds)
            bad[at:] = other[rng.randrange(len(other)) :]
    return bytes(bad)


class Slow(BaseException):
    """A reader has taken too long."""


def _slow(*_):
    raise Slow


def main():
    parser = soaking.parser(__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="in total")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of readers")
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _slow)
    rng, wrong, results = random.Random(asked.seed), [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        every = {key: value for key, value in readers(folder).items() if not asked.only or key in asked.only}
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        for key, (file, seeds, read, errors) in every.items():
            place, refused, slowest, count = folder / "damaged" / key, 0, 0.0, asked.inputs // len(every)
            place.mkdir(parents=True)
            path = place / file
            for k in range(count):
                content = seeds[k] if k < len(seeds) else damaged(rng, seeds)
                path.write_bytes(content)
                signal.alarm(SLOW)
                began = time.perf_counter()
                try:
                    read(path)
                except errors:
                    refused += 1
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    place_of = traceback.extract_tb(error.__traceback__)[-1]
                    text = f"{key}: {type(error).__name__}: {error} ({Path(place_of.filename).name}:{place_of.lineno})"[:300]
                    if text not in wrong:
                        wrong.append(text)
                        asked.findings.mkdir(exist_ok=True)
                        (asked.findings / f"{len(wrong)}-{file}").write_bytes(content)
                finally:
                    signal.alarm(0)
                slowest = max(slowest, time.perf_counter() - began)
            results[key] = {"inputs": count, "refused": refused, "slowest_ms": round(1000 * slowest, 1)}
    return soaking.finish(asked, {"memory_bound": MEMORY, "readers": results}, wrong)


if __name__ == "__main__":
    raise SystemExit(main())
