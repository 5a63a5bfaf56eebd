"""Sums of losses: on several outputs, or several on one. The core against the definition and against PyTorch, what is
counted, and runs that are kept."""

import json

import numpy as np
import pytest

import chaos
import chaos.virtual
from chaos import cli, reference
from chaos.losses import LOSSES, Sum

N = 10


def branches(seed=1):
    """A map, a vector and a vector before the last layer, all of one trunk."""
    x = chaos.Input((2, 6, 5))
    trunk = chaos.Tanh()(chaos.Conv2d(4, 3, padding=1)(x))
    maps = chaos.Conv2d(3, 1, name="maps")(trunk)
    middle = chaos.Linear(5, name="middle")(chaos.Flatten()(trunk))
    last = chaos.Linear(7, name="last")(chaos.Tanh()(middle))
    return chaos.Network(x, [maps, middle, last], seed=seed)


def images(n=N):
    return np.random.default_rng(3).standard_normal((n, 2, 6, 5), np.float32)


def targets(n=N):
    rng = np.random.default_rng(4)
    return rng.integers(0, 3, (n, 6, 5)), rng.standard_normal((n, 5)).astype(np.float32), rng.integers(0, 7, n)


WHOLE = "cross_entropy + 0.25*mse + 2*cross_entropy"
CASES = {
    "one for each": (WHOLE, {}, targets()),
    "options": (WHOLE, {"0.weight": [0.5, 1.0, 2.0], "0.ignore_index": 2, "2.label_smoothing": 0.1}, targets()),
    "two of one": ("cross_entropy@2 + 0.5*multi_margin@2 + l1@1", {}, (targets()[2], targets()[2], targets()[1])),
    "one of the last": ("cross_entropy@2", {}, targets()[2]),
    "the same for two": ("cross_entropy@1 + 0.3*cross_entropy@2", {}, targets()[2] % 5),
    "nothing counts": ("0*mse@1", {}, targets()[1]),
}


@pytest.mark.parametrize("case", CASES)
def test_core_is_the_definition(case):
    loss, options, y = CASES[case]
    net, x, weight = branches(), images(), np.linspace(0, 2, N, dtype=np.float32)
    value, gradients = net.loss_and_gradients(x, y, loss, loss_options=options, sample_weight=weight)
    right, expected = reference.loss_and_gradients(net, x, y, loss, loss_options=options, weights=weight)
    assert value == pytest.approx(right, rel=1e-5, abs=1e-12)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    touched = {"maps.weight": "maps" in _of(loss), "last.weight": "last" in _of(loss)}
    for name, learns in touched.items():
        assert np.any(gradients[name]) == learns, name


def _of(loss):
    names = ["maps", "middle", "last"]
    return {names[term.output] for term in LOSSES.terms(loss, LOSSES[loss].resolve({}), 3) if term.factor}


def test_definition_against_finite_differences():
    loss, options, y = CASES["two of one"]
    net, x, h = branches(), images(3).astype(np.float64), 1e-6
    y = tuple(one[:3] for one in y)
    state = {name: value.astype(np.float64) for name, value in net.state_dict().items()}
    _, gradients = reference.loss_and_gradients(net, x, y, loss, state=state, loss_options=options)
    for name, gradient in gradients.items():
        at = np.unravel_index(np.argmax(np.abs(gradient)), gradient.shape)
        values = []
        for step in (h, -h):
            moved = {**state, name: state[name].copy()}
            moved[name][at] += step
            values.append(reference.loss_and_gradients(net, x, y, loss, state=moved)[0])
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(gradient[at], rel=1e-6), name


def test_a_step_is_pytorch_s():
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    net, x, (maps, middle, last) = branches(), images(), targets()
    module = net.to_torch()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        a, b, c = module(torch.from_numpy(x))
        mean = (
            F.cross_entropy(a, torch.from_numpy(maps), reduction="sum") / N
        )  # chaos: the sum over pixels, mean over images
        if LOSSES["cross_entropy"].value(np.zeros((1, 3, 2)), np.zeros((1, 2), int)) < 2:
            mean = F.cross_entropy(a, torch.from_numpy(maps))
        loss = mean + 0.25 * F.mse_loss(b, torch.from_numpy(middle)) + 2 * F.cross_entropy(c, torch.from_numpy(last))
        loss.backward()
        optimizer.step()
    data = chaos.data.Dataset(x, targets=(maps, middle, last))
    chaos.train(net, data, loss=WHOLE, batch_size=N, epochs=3, lr=0.1, lr_decay=1, workers=1, shuffle=False, progress=False)
    for name, value in module.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], value.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def test_errors_are_those_of_the_first_term_that_counts():
    net, x, (maps, middle, last) = branches(), images(), targets()
    data = chaos.data.Dataset(x, targets=(middle, last, maps))
    found = chaos.training.evaluate(net, data, loss="mse@1 + cross_entropy@2 + cross_entropy@0")
    wrong = (net.forward(x)[2].argmax(1) != last).sum()
    assert found["wrong"] == wrong and found["error"] == wrong / N
    whole = reference.loss_and_gradients(net, x, (middle, last, maps), "mse@1 + cross_entropy@2 + cross_entropy@0")[0]
    assert found["loss"] == pytest.approx(whole, rel=1e-5)
    maps[0, :2] = -100  # ignored
    found = chaos.training.evaluate(net, chaos.data.Dataset(x, targets=(maps, middle)), loss="cross_entropy@0 + mse@1")
    known = maps != -100
    assert found["error"] == pytest.approx((net.forward(x)[0].argmax(1) != maps)[known].mean())
    assert chaos.training.evaluate(net, chaos.data.Dataset(x, targets=middle), loss="mse@1")["error"] is None


@pytest.mark.parametrize("strategy", ["chaos", "synchronous", "hybrid"])
def test_one_worker_is_sequential(strategy):
    data = chaos.data.Dataset(images(40), targets=targets(40))
    bits = []
    for how in ("sequential", strategy):
        net = branches()
        chaos.train(net, data, loss=WHOLE, strategy=how, workers=1, batch_size=4, epochs=2, lr=0.01, progress=False)
        bits.append(net.weights.tobytes())
    assert bits[0] == bits[1] or strategy != "chaos"
    if strategy != "chaos":  # lanes add up in another order, the same for any number of workers
        net = branches()
        chaos.train(net, data, loss=WHOLE, strategy=strategy, workers=2, batch_size=4, epochs=2, lr=0.01, progress=False)
        assert net.weights.tobytes() == bits[1]


def test_a_run_is_kept_continued_and_evaluated(tmp_path):
    data, folder = chaos.data.Dataset(images(40), targets=targets(40)), tmp_path / "run"
    how = dict(loss=WHOLE, loss_options={"2.label_smoothing": 0.1}, workers=1, lr=0.01, progress=False)
    whole, parts = branches(), branches()
    chaos.train(whole, data, epochs=3, **how)
    chaos.train(parts, data, epochs=1, run_dir=folder, **how)
    chaos.train(parts, data, epochs=3, run_dir=folder, resume=True, **how)
    assert parts.weights.tobytes() == whole.weights.tobytes()
    kept = json.loads((folder / "config.json").read_text())
    assert kept["loss"] == WHOLE and kept["loss_options"]["2.label_smoothing"] == 0.1
    with pytest.raises(chaos.CheckpointError, match="loss"):
        chaos.train(branches(), data, epochs=3, run_dir=folder, resume=True, **how | {"loss": WHOLE.replace("2*", "3*")})


def test_virtual_workers_take_sums():
    data, net, alone = chaos.data.Dataset(images(40), targets=targets(40)), branches(), branches()
    runner = chaos.virtual.Virtual()
    chaos.train(net, data, loss=WHOLE, workers=1, epochs=2, lr=0.01, progress=False, runner=runner)
    chaos.train(alone, data, loss=WHOLE, workers=1, epochs=2, lr=0.01, progress=False)
    assert net.weights.tobytes() == alone.weights.tobytes()


def test_command_line(tmp_path, capsys):
    run = str(tmp_path / "run")
    words = ["train", "small", "--data", "digits", "--workers", "1", "--quiet", "--epochs", "1", "--run-dir", run]
    assert cli.main([*words, "--loss", "cross_entropy + 0.1*multi_margin", "--loss-option", "1.margin=0.5"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["loss_options"]["1.margin"] == 0.5
    capsys.readouterr()
    assert cli.main(["evaluate", run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] < 0.9
    assert cli.main([*words, "--loss", "cross_entropy + 0.1*hinge"]) == 2
    assert "'0.1*hinge' in the loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    "loss, words",
    [
        ("cross_entropy", r"the network has 3 outputs.*'cross_entropy \+ cross_entropy \+ cross_entropy'"),
        ("cross_entropy@3", "term 0 .* is of output 3, and the network has 3"),
        ("mse + mse + mse + mse", "term 3 .* is of output 3"),
        ("cross_entropy + ", "'' in the loss 'cross_entropy [+] ' is no loss"),
        ("cross_entropy + sin", "'sin' in the loss"),
        ("-1*mse", "factor '-1' .* at least 0"),
        ("nan*mse", "factor 'nan'"),
        ("x*mse", "factor 'x'"),
        ("cosine", "unknown loss 'cosine'.*and sums such as"),
        (None, "unknown loss None"),
        (" + ".join(["mse@0"] * 65), "65 terms, at most 64"),
    ],
)
def test_what_is_no_sum_is_refused(loss, words):
    data = chaos.data.Dataset(images(), targets=targets())
    with pytest.raises(ValueError, match=words):
        chaos.train(branches(), data, loss=loss, epochs=1, workers=1, progress=False)


def test_targets_have_to_fit_their_terms():
    net, x, y = branches(), images(), targets()
    with pytest.raises(chaos.DataError, match="2 arrays of targets for a loss of 3 terms"):
        net.loss_and_gradients(x, y[:2], WHOLE)
    with pytest.raises(chaos.DataError, match=r"labels have shape \(9,\), expected \(10,\)"):
        net.loss_and_gradients(x, (*y[:2], y[2][:9]), WHOLE)
    with pytest.raises(chaos.DataError, match="9 labels for 10 images"):
        chaos.data.Dataset(x, targets=(*y[:2], y[2][:9]))
    with pytest.raises(ValueError, match="no option '3.weight'"):
        net.loss_and_gradients(x, y, WHOLE, loss_options={"3.weight": None})


def test_a_data_set_of_several_targets_is_sliced_and_told_apart():
    x, y = images(), targets()
    data = chaos.data.Dataset(x, targets=y)
    part = data[np.arange(N) % 2 == 0]
    for one, whole in zip(part.labels, y, strict=True):
        np.testing.assert_array_equal(one, whole[::2])
    assert "targets 6x5 int64 and targets 5 float32" in repr(data) and data.classes == 0
    other = (y[0], y[1] + 1, y[2])
    assert data.fingerprint() != chaos.data.Dataset(x, targets=other).fingerprint()


def test_numbers_with_exponents_are_factors():
    found = Sum("1e+1*mse + 1e-1*nll+2E+0*l1", LOSSES)
    assert [(loss.kind, factor) for loss, factor, _ in found.terms] == [("mse", 10), ("nll", 0.1), ("l1", 2)]
    assert Sum("huber+mse", LOSSES).terms[1][0].kind == "mse"
