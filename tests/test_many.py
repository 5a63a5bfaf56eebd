"""Many trainings at a time, searches, committees, and trainings in the background."""

import asyncio
import copy
import os
import signal
import threading

import numpy as np
import pytest

import chaos
from chaos.data import Dataset
from chaos.many import Results
from chaos.many.search import _parts


@pytest.fixture(scope="module")
def data():
    x, y = chaos.data.load("digits")[0].images[:200], chaos.data.load("digits")[0].labels[:200]
    return Dataset(x, y)


def network(shape=(1, 8, 8), width=8, seed=0):
    return chaos.Network(
        shape, [chaos.Conv2d(width, 3), chaos.Tanh(), chaos.Flatten(), chaos.Dropout(0.1), chaos.Linear(10)], seed=seed
    )


@pytest.fixture(scope="module")
def shape(data):
    return data.shape


def jobs(data, shape, n=6):
    """Of several architectures, settings and data."""
    return [
        {
            "network": network(shape, 4 + k, k),
            "train": data[: 100 + 10 * k],
            "test": data[150:],
            "epochs": 1 + k % 3,
            "lr": 0.01,
            "seed": k,
            "update": ("sgd", "adam")[k % 2],
            "batch_size": 1 + k,
            "label": {"width": 4 + k},
        }
        for k in range(n)
    ]


def alone(job):
    settings = {name: value for name, value in job.items() if name not in ("network", "label")}
    return chaos.train(copy.deepcopy(job["network"]), **settings, workers=1, progress=False)


@pytest.mark.parametrize("workers", [1, 3])
def test_each_job_has_the_bits_of_its_training_alone(data, shape, workers):
    given = jobs(data, shape)
    want = [alone(job) for job in given]
    seen = []
    found = chaos.train_many(given, workers=workers, progress=False, on_row=seen.append)
    for k, (row, run) in enumerate(zip(found, want, strict=True)):
        np.testing.assert_array_equal(row["network"].weights, run.network.weights)
        assert row["network"] is given[k]["network"] and row["job"] == k and row["width"] == 4 + k
        assert row["status"] == "done" and row["epochs"] == len(run.history) == len(row["history"])
        assert row["test_error"] == run.history[-1]["test_error"] and row["train_loss"] == run.history[-1]["train_loss"]
    assert sorted(row["job"] for row in seen) == list(range(6))
    assert found.best() is min(found, key=lambda row: row["test_error"])
    assert repr(found) == "<Results: 6 jobs, 6 done>" and not found.failed and len(found.networks) == 6


def test_failures_are_their_own(data, shape):
    def fails():
        raise RuntimeError("no such network")

    given = jobs(data, shape, 2)
    bad = [
        {"network": fails, "train": data},
        {"network": network(shape), "train": data, "lr": 3e38, "epochs": 3},
        {"network": network(shape), "train": data, "epochs": -1},
        {"network": lambda: 5, "train": data},
        {"network": network(shape), "train": data, "callbacks": [Raises(2)], "epochs": 3},
    ]
    want = [alone(job) for job in given]
    found = chaos.train_many([given[0], *bad, given[1]], workers=2, progress=False)
    assert [row["status"] for row in found] == ["done", *["failed"] * 5, "done"]
    for row, run in zip((found[0], found[-1]), want, strict=True):
        np.testing.assert_array_equal(row["network"].weights, run.network.weights)
    texts = [row["error"] for row in found.failed]
    assert "no such network" in texts[0] and "diverged" in texts[1] and "epochs" in texts[2] and "int" in texts[3]
    assert "callback of epoch 2" in texts[4] and found[5]["epochs"] == 2
    assert isinstance(found[2]["exception"], chaos.DivergedError)
    with pytest.raises(RuntimeError, match="no such network") as caught:
        found.raise_failed()
    assert "in job 1; 5 of 7 jobs have failed" in caught.value.__notes__


class Raises(chaos.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def epoch_end(self, event, record):
        if event.epoch == self.epoch:
            raise RuntimeError(f"callback of epoch {self.epoch}")


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"epoch": 3}, ValueError, "job 1 has 'epoch', which is none of a job's names; did you mean epochs"),
        ({"name": "a"}, ValueError, "job 1 has 'name', which is none of a job's names; did you mean label"),
        ({"workers": 2}, ValueError, "job 1 has 'workers', which is the same for all"),
        ({"network": None}, TypeError, "network of job 1 must be a chaos.Network"),
        ({"label": {"status": 1}}, ValueError, "label of job 1 has 'status'"),
        ({"train": None}, ValueError, "job 1 has no 'train'"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(data, shape, change, error, text):
    given = jobs(data, shape, 2)
    before = given[0]["network"].weights.copy()
    given[1] |= change
    if given[1]["train"] is None:
        del given[1]["train"]
    with pytest.raises(error, match=text):
        chaos.train_many(given, progress=False)
    np.testing.assert_array_equal(given[0]["network"].weights, before)


def test_one_network_in_two_jobs_is_refused(data, shape):
    net = network(shape)
    with pytest.raises(ValueError, match="jobs 0 and 1 train the same network"):
        chaos.train_many([{"network": net, "train": data}] * 2)
    with pytest.raises(TypeError, match="job 0 must be a dict"):
        chaos.train_many([net])
    assert chaos.train_many([], progress=False) == Results()


def test_networks_that_are_not_kept(data, shape):
    found = chaos.train_many(
        ({"network": lambda s=s: network(shape, seed=s), "train": data[:20], "epochs": 1} for s in range(3)),
        keep_networks=False, progress=False,
    )  # fmt: skip
    assert [row["network"] for row in found] == [None] * 3 and found.networks == []


def test_a_table_without_pandas_and_with(data, shape):
    found = chaos.train_many(jobs(data, shape, 2), progress=False)
    pandas = pytest.importorskip("pandas")
    frame = found.to_frame()
    assert isinstance(frame, pandas.DataFrame) and list(frame["width"]) == [4, 5] and "network" not in frame


def test_progress_is_one_display(data, shape, capfd):
    chaos.train_many(jobs(data, shape, 3))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("3 of 3 jobs")


class Interrupts(chaos.Callback):
    """Sends Ctrl-C to the process when its training has come to an epoch."""

    def epoch_end(self, event, record):
        if event.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_stops_all_and_keeps_what_there_is(data, shape):
    long = {"network": lambda: network(shape), "train": data, "epochs": 1_000_000, "lr": 1e-6, "lr_schedule": "constant"}
    given = [*jobs(data, shape, 1), long | {"callbacks": [Interrupts()]}, *[dict(long) for _ in range(3)]]
    with pytest.raises(KeyboardInterrupt) as caught:
        chaos.train_many(given, workers=2, progress=False)
    results = caught.value.results
    assert [row["status"] for row in results][1] == "stopped" and results[1]["epochs"] >= 2
    assert results[0]["status"] == "done" and results[-1]["status"] == "cancelled"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_caller_stops_all(data, shape):
    long = {"network": lambda: network(shape), "train": data, "epochs": 1_000_000, "lr": 1e-6, "lr_schedule": "constant"}

    def on_row(row):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        chaos.train_many([*jobs(data, shape, 1), long], workers=2, progress=False, on_row=on_row)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("chaos")]


def test_data_are_not_read_for_fingerprints_that_nobody_asks_for(data, shape, monkeypatch):
    monkeypatch.setattr(Dataset, "fingerprint", lambda self: pytest.fail("all images are read"))
    assert chaos.train_many(jobs(data, shape, 2), progress=False).best()["status"] == "done"


# ---- search ----


def build(width=8, shape=(1, 8, 8)):
    return chaos.Network(shape, [chaos.Flatten(), chaos.Linear(width), chaos.Tanh(), chaos.Linear(10)])


def test_a_grid_with_folds_is_what_a_loop_gives(data, shape):
    space = {"width": [3, 20], "lr": [1e-6, 0.05]}
    found = chaos.search(
        lambda width: build(width, shape), data, space, validation=3, epochs=3, seed=4, workers=2, progress=False
    )
    assert [(row["width"], row["lr"]) for row in found.results] == [(3, 1e-6), (3, 0.05), (20, 1e-6), (20, 0.05)]
    assert len(found.jobs) == 12
    for row in found.results:
        errors = []
        for train, test in _parts(data, 3, 4):
            net = build(row["width"], shape)
            errors.append(
                chaos.train(net, train, test, lr=row["lr"], epochs=3, seed=4, workers=1, progress=False).history[-1][
                    "test_error"
                ]
            )
        assert row["validation_error"] == np.mean(errors) and row["validation_error_std"] == np.std(errors)
    assert sorted(row["rank"] for row in found.results) == [1, 2, 3, 4]
    assert found.best_params == {"width": 20, "lr": 0.05} and found.best_score == found.results[3]["validation_error"]
    net = build(20, shape)
    chaos.train(net, data, lr=0.05, epochs=3, seed=4, workers=1, progress=False)
    np.testing.assert_array_equal(found.network.weights, net.weights)


def test_random_candidates(data, shape):
    class Distribution:
        def rvs(self, random_state):
            return np.float64(random_state.uniform(0.01, 0.1))

    space = {"width": lambda rng: int(rng.integers(2, 9)), "lr": Distribution(), "batch_size": [1, 8]}

    def find(seed):
        settings = dict(n_iter=4, validation=0.25, by="loss", refit=False, epochs=1, progress=False)
        return chaos.search(lambda width: build(width, shape), data, space, seed=seed, **settings)

    one, again, other = find(1), find(1), find(2)
    params = [[(row["width"], row["lr"], row["batch_size"]) for row in found.results] for found in (one, again, other)]
    assert params[0] == params[1] != params[2] and len(params[0]) == 4
    assert all(2 <= width < 9 and 0.01 <= lr <= 0.1 and batch in (1, 8) for width, lr, batch in params[0])
    assert one.network is None and one.best_score == min(row["validation_loss"] for row in one.results)
    assert isinstance(one.results[0]["lr"], float)


def test_candidates_that_fail_do_not_win(data, shape):
    space = {"lr": [0.01, 3e38]}
    found = chaos.search(lambda: build(5, shape), data, space, validation=data[:50], epochs=2, progress=False)
    assert found.best_params == {"lr": 0.01}
    bad = found.results[1]
    assert bad["failed"] == 1 and "diverged" in bad["error"] and np.isnan(bad["validation_error"]) and bad["rank"] is None
    with pytest.raises(chaos.DivergedError):
        chaos.search(lambda: build(5, shape), data, {"lr": [3e38]}, validation=2, epochs=2, progress=False)


@pytest.mark.parametrize(
    "space, settings, error",
    [
        ({}, {}, "space must be a dict"),
        ({"lr": []}, {}, "no value for 'lr'"),
        ({"lr": 0.1}, {}, "'lr' must be a list of values"),
        ({"lr": lambda rng: 1}, {}, "say how often with n_iter"),
        ({"lr": [1]}, {"by": "accuracy"}, "by must be one of error, loss"),
        ({"lr": [1]}, {"validation": 1}, "from 2 to 200 folds"),
        ({"lr": [1]}, {"validation": 0.0}, "validation"),
        ({"lr": [1]}, {"epoch": 3}, "chaos.train has no 'epoch'"),
        ({"lr": [1]}, {"n_iter": 0}, "n_iter"),
    ],
)
def test_searches_that_make_no_sense(data, shape, space, settings, error):
    with pytest.raises(ValueError, match=error):
        chaos.search(lambda: build(5, shape), data, space, progress=False, **settings)


@pytest.mark.parametrize("validation", [2, 5, 0.1, 0.5])
def test_parts_have_all_classes_in_their_shares(validation):
    labels = np.repeat([0, 1, 2], [100, 40, 10])
    data = Dataset(np.zeros((150, 1, 1, 1), np.uint8), labels)
    data.images[:, 0, 0, 0] = np.arange(150)
    parts = _parts(data, validation, 3)
    share = 1 / validation if isinstance(validation, int) else validation
    for train, test in parts:
        np.testing.assert_allclose(np.bincount(test.labels), np.array([100, 40, 10]) * share, atol=1)
        assert sorted([*train.images.ravel(), *test.images.ravel()]) == list(range(150))
    if isinstance(validation, int):
        assert sorted(np.concatenate([test.images.ravel() for _, test in parts])) == list(range(150))
    other = _parts(data, validation, 4)[0][1]
    assert not np.array_equal(other.images, parts[0][1].images)


def test_committees(data, shape):
    nets = [network(shape, seed=s) for s in range(3)]
    committee = chaos.Committee(nets)
    want = np.mean([net.predict_proba(data.images) for net in nets], axis=0, dtype=float)
    np.testing.assert_allclose(committee.predict_proba(data.images), want, atol=1e-7)
    np.testing.assert_array_equal(committee.predict(data.images), want.argmax(1))
    assert len(committee) == 3 and "3 networks" in repr(committee)
    seen = chaos.Committee(nets, views=[None, lambda x: x[..., ::-1], lambda x: x // 2])
    each = [data.images, data.images[..., ::-1], data.images // 2]
    want = np.mean([net.predict_proba(x) for net, x in zip(nets, each, strict=True)], axis=0, dtype=float)
    np.testing.assert_allclose(seen.predict_proba(data.images), want, atol=1e-7)
    with pytest.raises(ValueError, match="at least one"):
        chaos.Committee([])
    with pytest.raises(ValueError, match="1 views"):
        chaos.Committee(nets, views=[None])
    with pytest.raises(TypeError, match="a view is a function"):
        chaos.Committee(nets, views=[None] * (len(nets) - 1) + [3])
    with pytest.raises(ValueError, match="do not fit"):
        chaos.Committee([nets[0], chaos.Network((3,), [chaos.Linear(10)])])


# ---- in the background ----

FOR_EVER = dict(epochs=1_000_000, lr=1e-6, lr_schedule="constant", progress=False, workers=1)


def test_a_training_in_a_thread_gives_the_same(data, shape):
    job = jobs(data, shape, 1)[0]
    want = alone(job)
    net = copy.deepcopy(job["network"])
    training = chaos.train_async(net, data[:100], data[150:], epochs=1, lr=0.01, workers=1, progress=False)
    run = training.result(60)
    np.testing.assert_array_equal(net.weights, want.network.weights)
    assert training.done() and run.history[-1]["test_error"] == want.history[-1]["test_error"]
    assert len(training.history) == 1 and training.network is net and "over" in repr(training)


def test_it_can_be_stopped_and_used_meanwhile(data, shape):
    epochs = threading.Event()

    class Count(chaos.Callback):
        def epoch_end(self, event, record):
            if event.epoch == 3:
                epochs.set()

    net = network(shape)
    training = chaos.train_async(net, data, callbacks=[Count()], **FOR_EVER)
    assert epochs.wait(60) and not training.done()
    assert net.predict(data.images).shape == (200,)
    with pytest.raises(TimeoutError):
        training.result(0.01)
    training.stop()
    run = training.result(60)
    assert run.stopped and len(run.history) >= 3
    with chaos.train_async(net, data, **FOR_EVER) as training:
        pass
    assert training.done() and training.result().stopped


def test_errors_are_those_of_train(data, shape):
    with pytest.raises(chaos.DivergedError):
        chaos.train_async(network(shape), data, lr=3e38, progress=False).result(60)
    with pytest.raises(TypeError, match="epoch"):
        chaos.train_async(network(shape), data, epoch=1).result(60)


def test_awaiting(data, shape):
    async def several():
        nets = [network(shape, seed=s) for s in range(2)]
        runs = await asyncio.gather(*(chaos.train_async(net, data, epochs=2, workers=1, progress=False) for net in nets))
        assert [len(run.history) for run in runs] == [2, 2]

        training = chaos.train_async(nets[0], data, **FOR_EVER)

        async def wait():
            return await training

        task = asyncio.create_task(wait())
        while not training.history:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.to_thread(training.result, 60)

    assert asyncio.run(several()).stopped


ENDS = """
import numpy as np, chaos
data = chaos.data.Dataset(np.zeros((50, 1, 4, 4), np.uint8), np.zeros(50, int))
net = chaos.Network((1, 4, 4), [chaos.Flatten(), chaos.Linear(2)])
chaos.train_async(net, data, epochs=10**9, lr_schedule="constant", progress=False, workers=1)
print("end")
"""


def test_a_program_that_ends_ends_it():
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
