"""Writes chaos/data/digits.npz from scikit-learn's digits, or checks it. For developers; needs scikit-learn.

python scripts/make_digits.py            write the file
python scripts/make_digits.py --check    say whether the file holds what scikit-learn has (exit status 0
or 1)
"""

import argparse
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

TARGET = Path(__file__).resolve().parent.parent / "chaos" / "data" / "digits.npz"


def source() -> dict[str, np.ndarray]:
    """The arrays to store: images (1797, 8, 8) of 0..16 and labels (1797,) of 0..9, both uint8."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("scikit-learn is needed: pip install scikit-learn")
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    assert images.shape == (1797, 8, 8) and (images == digits.images).all() and images.max() == 16
    assert labels.shape == (1797,) and (labels == digits.target).all() and labels.max() == 9
    return {"images": images, "labels": labels}


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz file without a date or anything else of the day or the machine in it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            member.create_system = 3
            with archive.open(member, "w") as file:
                npy.write_array(file, array, version=(1, 0))


def check(path: Path, arrays: dict[str, np.ndarray]) -> bool:
    """Whether the file holds these arrays: by value, as deflate differs between versions of zlib."""
    with np.load(path, allow_pickle=False) as stored:
        return sorted(stored.files) == sorted(arrays) and all(
            stored[name].dtype == array.dtype and np.array_equal(stored[name], array) for name, array in arrays.items()
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Write or check chaos/data/digits.npz.")
    parser.add_argument("--check", action="store_true", help="compare the file with scikit-learn's digits")
    if parser.parse_args().check:
        good = check(TARGET, source())
        print(f"{TARGET.name} {'equals' if good else 'DIFFERS FROM'} scikit-learn's digits")
        return 0 if good else 1
    write(TARGET, source())
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
