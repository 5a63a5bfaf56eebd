"""Ranks that were told different things: all say in what they differ, before anything is trained; nobody hangs."""

import json

import pytest
from test_cluster import library, run  # noqa: F401

from chaos.cluster.agreement import differences
from chaos.training import CONFIG, METRICS

# what is different on rank 1, and how it is called
CASES = [
    (dict(cluster="gossip"), "cluster ('local' on rank 0, 'gossip' on rank 1)"),
    (dict(cluster_options={"every": 30}), "cluster_options every (20 on rank 0, 30 on rank 1)"),
    (dict(epochs=3), "epochs (2 on rank 0, 3 on rank 1)"),
    (dict(lr=0.02), "lr (0.01 on rank 0, 0.02 on rank 1)"),
    (dict(lr_decay=0.5), "lr_decay (0.9 on rank 0, 0.5 on rank 1)"),
    (dict(lr_schedule="cosine"), "lr_schedule ('exponential' on rank 0, 'cosine' on rank 1)"),
    (dict(schedule_options={"warmup": 1}), "schedule_options warmup ("),
    (dict(seed=7), "seed (0 on rank 0, 7 on rank 1)"),
    (dict(batch_size=2), "batch_size (1 on rank 0, 2 on rank 1)"),
    (dict(shuffle=False), "shuffle (True on rank 0, False on rank 1)"),
    (dict(evaluate_train=True), "evaluate_train (False on rank 0, True on rank 1)"),
    (dict(update="momentum"), "update ('sgd' on rank 0, 'momentum' on rank 1)"),
    (dict(update_options={"weight_decay": 0.1}), "update_options weight_decay ("),
    (dict(loss_options={"label_smoothing": 0.1}), "loss_options label_smoothing ("),
    (dict(strategy_options={"stripe_bytes": 64}), "strategy_options stripe_bytes (16384 on rank 0, 64 on rank 1)"),
    (dict(model="medium"), "layers of the network (rank 1 has others than rank 0)"),
    (dict(frozen="0.*"), "layers of the network (rank 1 has others than rank 0)"),
    (dict(shorter=True), "train images (rank 1 has others than rank 0)"),
    (dict(labels=True), "train images (rank 1 has others than rank 0)"),
    (dict(no_test=True), "test images (rank 1 has others than rank 0)"),
    (dict(isa="generic"), "'generic' on rank 1"),
    (dict(winograd=False), "winograd (True on rank 0, False on rank 1)"),
    (dict(lr=-1), "lr must be"),
    (dict(cluster="nonsense"), "unknown cluster mode 'nonsense'"),
    (dict(comm=3), "comm must be an mpi4py.MPI.Intracomm, not 3"),
]

DIFFERENT = """
train, test = chaos.data.load("digits", size=29)
train, test = train[:60], test[:10]
best = _core.get_isa()
found = []
for more in json.loads(sys.argv[2]):
    more = more if rank() == 1 else {} if "comm" not in more else more
    net = getattr(chaos.models, more.pop("model", "small"))(seed=0)
    if "frozen" in more:
        net.freeze(more.pop("frozen"))
    data = train[:50] if more.pop("shorter", False) else train
    if more.pop("labels", False):
        data = chaos.data.Dataset(train.images, (train.labels + 1) % 10)
    tested = None if more.pop("no_test", False) else test
    _core.set_isa(more.pop("isa", best))
    _core.set_winograd(more.pop("winograd", True))
    before = net.weights.copy()
    try:
        chaos.train(net, data, tested, **dict(cluster="local", cluster_options={"every": 20}, epochs=2, lr=0.01, workers=1,
                                              progress=False, stall_timeout=5) | more)
        found.append("trained")
    except (ValueError, TypeError, chaos.ClusterError) as error:
        found.append(f"{type(error).__name__}: {error}")
        assert (net.weights == before).all()
tell(found)
"""


def test_ranks_that_differ_are_told_in_what(library, tmp_path):  # noqa: F811
    told, _ = run(library, 2, DIFFERENT, tmp_path, json.dumps([{}, *(more for more, _ in CASES), {}]))
    assert [one[0] for one in told] == [one[-1] for one in told] == ["trained"] * 2
    for (more, words), *both in zip(CASES, *(one[1:-1] for one in told), strict=True):
        assert all(words in text for text in both), (more, both)


def test_differences_in_words():
    assert differences([{"a": 1, "b": {"x": 1}}] * 3) is None
    assert differences([{"a": 1}, {"a": 2}, {"a": 1}]) == "a (1 on ranks 0, 2, 2 on rank 1)"
    assert differences([{"b": {"x": 1}}, {"b": {"x": 1, "y": None}}]) is None
    assert differences([{"b": {"x": 1}}, {"b": {"x": 2}}]) == "b x (1 on rank 0, 2 on rank 1)"
    told = differences([{"network": 0}] + [{"network": 1}] * 9)
    assert told == "layers of the network (ranks 1, 2, 3, 4, 5, 6, 7, 8, ... have others than rank 0)"


COMMAND = """
import contextlib, io
from chaos.cli import main
own = folder / f"place-{rank()}"  # no directory in common
own.mkdir(exist_ok=True)
os.chdir(own)
argv, different = json.loads(sys.argv[2])
said = io.StringIO()
with contextlib.redirect_stderr(said):
    code = main(["train", "--run-dir", "run", *argv, *(different if rank() == 1 else [])])
tell([code, said.getvalue()])
"""


def test_rank_0_says_how_a_run_is_continued(library, tmp_path):  # noqa: F811
    """Without --cluster, where nobody else sees the run: in its mode, with its settings."""
    new = ["small", "--data", "digits", "--subset", "101", "--lr", "0.01", "--workers", "1", "--epochs", "1"]
    for argv in ([*new, "--cluster", "gossip", "--cluster-option", "every=20"], ["--resume", "--epochs", "2"]):
        told, _ = run(library, 2, COMMAND, tmp_path, json.dumps([argv, []]))
        assert [code for code, _ in told] == [0, 0], told
    lines = [json.loads(line) for line in (tmp_path / "place-0" / "run" / METRICS).read_text().splitlines()]
    assert [one["cluster"]["mode"] for one in lines] == ["gossip"] * 2
    assert lines[1]["cluster"]["options"]["every"] == 20 and lines[1]["lr"] == pytest.approx(0.009)
    assert not list((tmp_path / "place-1").iterdir())
    (tmp_path / "place-0" / "run" / CONFIG).write_text("{")
    told, _ = run(library, 2, COMMAND, tmp_path, json.dumps([["--resume"], []]))
    assert [code for code, _ in told] == [2, 2] and "damaged" in told[0][1] and not told[1][1]


def test_commands_that_differ(library, tmp_path):  # noqa: F811
    """The programs of one job may have different numbers of workers, and nothing else."""
    new = ["small", "--data", "digits", "--subset", "101", "--epochs", "1", "--rank-details"]
    told, _ = run(library, 2, COMMAND, tmp_path, json.dumps([[*new, "--workers", "1"], ["--workers", "2"]]))
    assert [code for code, _ in told] == [0, 0], told
    (line,) = (tmp_path / "place-0" / "run" / METRICS).read_text().splitlines()
    assert [one["workers"] for one in json.loads(line)["cluster"]["per_rank"]] == [1, 2]
    told, _ = run(library, 2, COMMAND, tmp_path, json.dumps([new, ["--lr", "0.5", "--data", "mnist"]]))
    assert [code for code, _ in told] == [2, 2] and not told[1][1]
    assert "data ('digits' on rank 0, 'mnist' on rank 1); lr (None on rank 0, 0.5 on rank 1)" in told[0][1]
