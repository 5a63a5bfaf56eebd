"""Traces: a real asynchronous run is repeated to the last bit, and nothing else passes for it."""

import os
import re
import signal
import struct
import tempfile
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import graph, images

import chaos
from chaos import TraceError, _core, cli, virtual
from chaos.formats.trace import MAGIC, TraceReader, pack, unpack
from chaos.sync import STRATEGIES


@pytest.fixture(scope="module")
def digits():
    return chaos.data.load("digits", size=29)[0][:150]


def traced(path, data, net, workers=2, epochs=2, **options):
    with virtual.Traced(path) as runner:
        return chaos.train(net, data, workers=workers, epochs=epochs, lr=0.01, progress=False, runner=runner, **options)


@pytest.mark.parametrize("workers", [2, 4])
def test_replays_are_the_run(digits, tmp_path, workers):
    """20 times out of 20, and the runs are not all the same run."""
    ends = set()
    for i in range(20):
        net = chaos.models.small(seed=i % 3)
        run = traced(tmp_path / "t", digits, net, workers, strategy_options={"stripe_bytes": 256})
        assert run.history[-1]["workers"] == workers
        again = virtual.replay(tmp_path / "t", digits, jobs=2)
        assert (again.weights == net.weights).all()
        if i % 3 == 0:
            ends.add(net.weights.tobytes())
    assert len(ends) > 1, "if all runs had the same order, this test would show nothing"


@pytest.mark.parametrize("strategy, workers", [("sequential", 1), ("chaos", 1), ("chaos", 3)])
@pytest.mark.parametrize("batch_size", [1, 20])
def test_graphs_batches_and_single_workers(isa, tmp_path, strategy, workers, batch_size):
    net = graph(seed=2)
    x, y = images(90, net.input_shape, classes=5)
    data = chaos.data.Dataset(x, y)
    with virtual.Traced(tmp_path / "t") as runner:
        chaos.train(
            net,
            data,
            strategy=strategy,
            workers=workers,
            batch_size=batch_size,
            epochs=2,
            lr=0.02,
            progress=False,
            runner=runner,
        )
    assert (virtual.replay(tmp_path / "t", data).weights == net.weights).all()
    if workers == 1:  # tracing changes nothing but what happens by chance
        plain = graph(seed=2)
        chaos.train(plain, data, strategy=strategy, workers=1, batch_size=batch_size, epochs=2, lr=0.02, progress=False)
        assert (plain.weights == net.weights).all()


@settings(max_examples=25, deadline=None)
@given(
    workers=st.integers(1, 8),
    batch=st.sampled_from([1, 3, 20]),
    stripe=st.sampled_from([64, 512, 16384]),
    pending=st.sampled_from([None, 1, 3]),
    late=st.sampled_from([None, 0, 2]),
    update=st.sampled_from(["sgd", "adam"]),
    jobs=st.integers(1, 3),
)
def test_reading_at_publication(workers, batch, stripe, pending, late, update, jobs):
    """What a worker reads is an event of its own; with one worker it is what its passes read."""
    net = graph(seed=2)
    x, y = images(90, net.input_shape, classes=5)
    data = chaos.data.Dataset(x, y)
    options = {"read": "publication", "stripe_bytes": stripe, "max_pending": pending, "max_staleness": late}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t")
        with virtual.Traced(path) as runner:
            run = chaos.train(
                net,
                data,
                workers=workers,
                batch_size=batch,
                epochs=2,
                lr=0.02,
                update=update,
                progress=False,
                runner=runner,
                strategy_options=options,
            )
        found = []
        assert (virtual.replay(path, data, jobs=jobs, progress=found.append).weights == net.weights).all()
        assert [phase["images"] for phase in found] == [90, 90]
        with TraceReader(path) as trace:
            for _, blocks, end in trace.phases():
                kinds = np.unique(np.concatenate(list(blocks)) >> np.uint64(16) & np.uint64(0xFFFF))
                assert (_core.EVENTS.index("read") in kinds) == (workers > 1)
                end()
    assert late is None or run.history[-1]["staleness"]["max"] <= late


@pytest.mark.parametrize("update", ["momentum", "adam"])
def test_update_rules_with_state(digits, tmp_path, update):
    net = chaos.models.small()
    with virtual.Traced(tmp_path / "t") as runner:
        chaos.train(
            net,
            digits,
            workers=3,
            epochs=2,
            lr=0.001,
            update=update,
            progress=False,
            runner=runner,
            update_options={"clip_norm": 1.0},
            strategy_options={"staleness_step": "fleet"},
        )
    assert (virtual.replay(tmp_path / "t", digits).weights == net.weights).all()


def test_another_order_gives_other_weights(digits, tmp_path):
    """So the replay does follow the trace."""
    while True:
        net = chaos.models.small()
        traced(tmp_path / "t", digits, net, 2, 1)
        with TraceReader(tmp_path / "t") as trace:
            events, _ = next((np.concatenate(list(blocks)), end()) for _, blocks, end in trace.phases())
        worker = events & np.uint64(0xFFFF)
        if worker.any() and not worker.all():  # both came to work
            break
    data = net.take_images(digits.images)
    found = []
    for order in ([events], [events[worker == 0], events[worker == 1]]):  # as it was; one worker after the other
        other = chaos.models.small()
        engine = _core.Engine(other.plan, other.weights, workers=2, strategy="chaos")
        engine.run(
            "train",
            data["inputs"],
            labels=digits.labels,
            lr=0.01,
            events=order,
            order=np.random.default_rng([0, 1]).permutation(len(digits)),
        )
        found.append(other.weights)
    assert (found[0] == net.weights).all() and (found[1] != net.weights).any()


def test_a_stopped_run_is_replayed_as_far_as_it_came(tmp_path):
    train = chaos.data.load("digits", size=29)[0]
    net = chaos.models.medium()
    timer = threading.Timer(0.4, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        traced(tmp_path / "t", train, net, 2, 1000)
    found = []
    assert (virtual.replay(tmp_path / "t", train, progress=found.append).weights == net.weights).all()
    assert found[-1]["status"] in ("stopped", "done")


def test_a_diverged_run_has_a_whole_trace(digits, tmp_path):
    with pytest.raises(chaos.DivergedError), virtual.Traced(tmp_path / "t") as runner:
        chaos.train(chaos.models.small(), digits, workers=2, epochs=2, lr=1e38, progress=False, runner=runner)
    found = []
    virtual.replay(tmp_path / "t", digits, progress=found.append)
    assert [phase["status"] for phase in found] == ["diverged"] and found[0]["weights"] is None


def test_bytes_per_image_are_bounded(digits, tmp_path):
    """As chaos.virtual.Traced states it: 1 event per step, 2 per layer, at most 2 per stripe; 7 bytes each at most."""
    net = chaos.models.small()
    stripes = _core.Engine(net.plan, net.weights).stripes
    traced(tmp_path / "t", digits, net, 4)
    size = (tmp_path / "t").stat().st_size - len(zlib.compress(net.weights.tobytes())) - 4000
    assert size < 2 * len(digits) * 7 * (1 + 2 * 4 + 2 * stripes)
    with TraceReader(tmp_path / "t") as trace:
        for about, events, end in trace.phases():
            assert sum(map(len, events)) == about["events"] <= len(digits) * (1 + 2 * 4 + 2 * stripes)
            end()


def test_other_data_models_and_instruction_sets_are_refused(digits, tmp_path, monkeypatch):
    net = chaos.models.small()
    traced(tmp_path / "t", digits, net, 2, 1)
    with pytest.raises(TraceError, match="other data: 150 images with fingerprint"):
        virtual.replay(tmp_path / "t", digits[:149])
    flipped = digits.images.copy()
    flipped[0, 0, 0, 0] ^= 1
    with pytest.raises(TraceError, match="other data"):
        virtual.replay(tmp_path / "t", chaos.data.Dataset(flipped, digits.labels))
    if len(_core.instruction_sets()) > 1:
        before = _core.get_isa()
        _core.set_isa("generic")
        try:
            with pytest.raises(TraceError, match=f"{before}, generic is in force; set CHAOS_ISA={before}"):
                virtual.replay(tmp_path / "t", digits)
        finally:
            _core.set_isa(before)
    with pytest.raises(TypeError, match="Dataset"):
        virtual.replay(tmp_path / "t", digits.images)
    monkeypatch.setattr(_core, "get_winograd", lambda: False)
    with pytest.raises(TraceError, match="recorded with CHAOS_WINOGRAD=1, 0 is in force"):
        virtual.replay(tmp_path / "t", digits)


def test_what_cannot_be_traced_is_refused(digits, tmp_path):
    for strategy in STRATEGIES.keys() - set(virtual.TRACEABLE):
        with pytest.raises(ValueError, match=f"{strategy!r} cannot be traced; these can: sequential, chaos"):
            traced(tmp_path / "t", digits, chaos.models.small(), strategy=strategy)
    with pytest.raises(ValueError, match="max_norm=1 cannot be traced"):
        traced(tmp_path / "t", digits, chaos.models.small(), update_options={"max_norm": 1.0})
    run = tmp_path / "run"
    chaos.train(chaos.models.small(), digits, workers=2, epochs=1, lr=0.01, progress=False, run_dir=run)
    with pytest.raises(ValueError, match="continued"):
        traced(tmp_path / "t", digits, chaos.models.small(), epochs=3, run_dir=run, resume=True)
    assert not (tmp_path / "t").exists()


def test_damage_is_found(digits, tmp_path):
    path = tmp_path / "t"
    traced(path, digits, chaos.models.small(), 2, 1)
    good = path.read_bytes()
    rng = np.random.default_rng(0)

    def refused(data, message=""):
        path.write_bytes(data)
        with pytest.raises(TraceError, match=f"{re.escape(str(path))}.*{message}"):
            virtual.replay(path, digits)

    refused(b"", "not a trace")
    refused(b"hello, world and all", "not a trace")
    refused(MAGIC[:-2] + b"9\n" + good[len(MAGIC) :], "version 9, this chaos reads version 1")
    refused(good + b"x", "damaged")
    for size in rng.integers(len(MAGIC), len(good), 30):
        refused(good[:size], "cut short")
    for at in rng.integers(len(MAGIC), len(good), 60):
        refused(good[:at] + bytes([good[at] ^ 1 << rng.integers(8)]) + good[at + 1 :], "damaged|cut short")
    with pytest.raises(TraceError, match="nothing"):
        virtual.replay(tmp_path / "nothing", digits)


def test_damaged_weights_are_told_once(digits, tmp_path):
    traced(tmp_path / "t", digits, chaos.models.small(), 1, 1)
    raw = bytearray((tmp_path / "t").read_bytes())
    raw[raw.index(b"WGHT") + 100] ^= 1
    (tmp_path / "t").write_bytes(raw)
    with pytest.raises(TraceError, match="checksum of record b'WGHT' is wrong") as caught:
        virtual.replay(tmp_path / "t", digits)
    assert str(caught.value).count(": damaged") == 1


def test_lies_with_right_checksums_are_found(digits, tmp_path):
    """Records whose checksum was made to fit, with events or heads that are no run's."""
    path = tmp_path / "t"
    traced(path, digits, chaos.models.small(), 2, 1)
    good, records = path.read_bytes(), []
    at = len(MAGIC)
    while at < len(good):
        tag, size, _ = struct.unpack_from("<4sQI", good, at)
        records.append([tag, good[at + 16 : at + 16 + size]])
        at += 16 + size

    def refused(change, message):
        changed = [list(record) for record in records]
        change(changed)
        path.write_bytes(MAGIC + b"".join(struct.pack("<4sQI", tag, len(p), zlib.crc32(p)) + p for tag, p in changed))
        with pytest.raises(TraceError, match=message):
            virtual.replay(path, digits)

    tags = [tag for tag, _ in records]
    events = tags.index(b"EVNT")

    def spoil(found):
        found[events][1] = pack(unpack(found[events][1])[::-1])

    refused(spoil, "not possible")

    def swap(found):  # two workers' first steps
        codes = unpack(found[events][1])
        codes[codes >> np.uint64(16) == 1] ^= np.uint64(1)
        found[events][1] = pack(codes)

    refused(swap, "not possible|not those of the traced run")
    refused(lambda found: found.__delitem__(events), "damaged")
    refused(lambda found: found[0].__setitem__(1, b"{}"), "lacks")
    refused(
        lambda found: found[0].__setitem__(1, found[0][1].replace(b'"lr": 0.01', b'"lr": 0.02')),
        "not those of the traced run",
    )
    refused(lambda found: found[0].__setitem__(1, found[0][1].replace(b'"conv2d"', b'"conv9d"')), "unknown layer kind")
    refused(lambda found: found[1].__setitem__(1, zlib.compress(bytes(16))), "the file 4 values")
    refused(lambda found: found[tags.index(b"PHAS")].__setitem__(1, b'{"events": 5}'), "damaged")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(1, 8), st.integers(0, 0xFFFFFFFF)), max_size=50))
def test_packing(events):
    codes = np.array([w | k << 16 | x << 32 for w, k, x in events], np.uint64)
    assert (unpack(pack(codes)) == codes).all()


def test_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", "digits", "--subset", "200", "--epochs", "2", "--lr", "0.01", "--workers", "2", "--quiet"]
    assert cli.main(["train", "small", *arguments, "--run-dir", "run", "--trace", "t"]) == 0
    (tmp_path / "other place").mkdir()
    monkeypatch.chdir(tmp_path / "other place")
    assert cli.main(["replay", "../t", "--save", "../again.safetensors"]) == 0  # the trace knows its data
    monkeypatch.chdir(tmp_path)
    assert cli.main(["replay", "t", "--data", "digits", "--run-dir", "run", "--save", "again.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "bit for bit; the weights are those in run" in out and "bytes per image" in out
    a, b = (chaos.load(name).state_dict() for name in ("run/model.safetensors", "again.safetensors"))
    assert all((a[name] == b[name]).all() for name in a)
    assert cli.main(["train", "small", *arguments, "--run-dir", "other", "--seed", "1"]) == 0
    capsys.readouterr()
    for bad, message in (
        (["replay", "t", "--data", "digits", "--run-dir", "other"], "not those of t"),
        (["replay", "nothing"], "nothing: No such file"),
        (["replay", "t", "--data", "digits", "--save", "a.bin"], "must end in .safetensors, not 'a.bin'"),
        (["replay", "t", "--data", "digits", "--save", "no/a.safetensors"], "there is no directory no"),
        (["train", "small", *arguments, "--trace", "u", "--strategy", "synchronous"], "cannot be traced"),
        (["train", "small", *arguments, "--trace", "t"], "--trace t: there is such a file already"),
        (["train", "--resume", "--run-dir", "run", "--trace", "t"], "--resume"),
        (["train", "small", *arguments, "--trace", "no/folder"], "no/folder"),
    ):
        assert cli.main(bad) == 2
        assert message in capsys.readouterr().err
