"""Losses: PyTorch's numbers, options that are lists, answers that are ignored, and what is refused. The definitions against
finite differences and the core against the definitions: test_layers.py."""

import json

import numpy as np
import pytest

import chaos
from chaos import _core, cli
from chaos.losses import CLASS, LOSSES, MAP, VALUES

SHAPES = [(7,), (1,), (3, 4, 5), (4, 6)]
WEIGHT = (0.5, 0.0, 2.0, 1.25, 0.7, 3.0, 1.0)


def network(shape=(3, 4, 5)):
    return chaos.Network((2, *shape[1:]), [chaos.Conv2d(shape[0], 1)], seed=1)


def images(n=12, shape=(2, 4, 5)):
    return np.random.default_rng(3).standard_normal((n, *shape), np.float32)


def of_torch(loss, torch, **options):
    """The loss of a batch by PyTorch, as chaos means it; arguments are tensors."""
    F = torch.nn.functional

    def tensors(y):
        given = {k: torch.tensor(v, dtype=y.dtype) if isinstance(v, list) else v for k, v in options.items()}
        if "pos_weight" in given:
            per = given["pos_weight"]
            given["pos_weight"] = (
                per.reshape(-1, *[1] * (y.ndim - 2)) if isinstance(per, torch.Tensor) else y.new_tensor([per])
            )
        return given

    def none_of(y, j):
        """Cross-entropy with one more class of output -j; without j -y_label."""
        return y if j is None else torch.cat((y, y.new_full((len(y), 1), -j)), 1)

    calls = {
        "cross_entropy": lambda y, t: F.cross_entropy(y, t, reduction="none", **tensors(y)).mean(),
        "nll": lambda y, t: F.nll_loss(y, t, reduction="none", **tensors(y)).mean(),
        "binary_cross_entropy": lambda y, t: F.binary_cross_entropy_with_logits(y, t, **tensors(y)),
        "mse": lambda y, t: F.mse_loss(y, t if t.shape == y.shape else F.one_hot(t, y.shape[1]).to(y)),
        "l1": lambda y, t: F.l1_loss(y, t),
        "huber": lambda y, t: F.huber_loss(y, t, **options),
        "smooth_l1": lambda y, t: F.smooth_l1_loss(y, t, **options),
        "kl_div": lambda y, t: F.kl_div(y, t, reduction="batchmean", **options),
        "multi_margin": lambda y, t: F.multi_margin_loss(y, t, **tensors(y)),
        "rbf": lambda y, t: (F.nll_loss if "j" not in options else F.cross_entropy)(none_of(y, options.get("j")), t),
        "score": lambda y, t: F.nll_loss(y, t),
    }
    return calls[loss]


def options_to_try(loss, form, shape):
    """Sets of options: all defaults, and what else belongs to the kind."""
    classes = LOSSES[loss].classes(form, shape)
    weight = np.resize(WEIGHT, classes).tolist()
    yield {}
    yield from {
        "cross_entropy": [{"weight": weight}, {"label_smoothing": 0.3}, {"weight": weight, "label_smoothing": 0.2}]
        + [{"weight": weight, "label_smoothing": 0.2, "ignore_index": 0}] * (form != VALUES),
        "nll": [{"weight": weight}, {"weight": weight, "ignore_index": 0}],
        "binary_cross_entropy": [{"pos_weight": 2.5}, {"pos_weight": [w + 0.1 for w in weight]}],
        "huber": [{"delta": 0.3}, {"delta": 4.0}],
        "smooth_l1": [{"beta": 0.3}, {"beta": 0.0}],
        "kl_div": [{"log_target": True}],
        "multi_margin": [{"p": 2}, {"margin": 0.2}, {"p": 2, "margin": 0.4, "weight": weight}, {"weight": weight}],
        "rbf": [{"j": 0.5}],
    }.get(loss, [])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss, form", [(loss, form) for loss, kind in LOSSES.items() for form in kind.targets])
def test_definitions_are_pytorchs(loss, form, shape):
    """Value and gradient in float64: both are some tens of roundings from the exact ones."""
    torch = pytest.importorskip("torch")
    if form == MAP and len(shape) == 1:
        return
    rng = np.random.default_rng(0)
    n, kind = 6, LOSSES[loss]
    for options in options_to_try(loss, form, shape):
        y = rng.standard_normal((n, *shape)) * 3
        target = {
            CLASS: rng.integers(0, int(np.prod(shape)), n),
            MAP: rng.integers(0, shape[0], (n, *shape[1:])),
            VALUES: rng.random((n, *shape)) * (rng.random((n, *shape)) < 0.7),
        }[form]
        assert {**options, **kind.resolve(options)} == kind.resolve(options)
        leaf = torch.tensor(y, requires_grad=True)
        value = of_torch(loss, torch, **options)(leaf.reshape(n, -1) if form == CLASS else leaf, torch.tensor(target))
        value.backward()
        assert kind.value(y, target, **options) == pytest.approx(value.item(), rel=1e-13, abs=1e-13), options
        np.testing.assert_allclose(
            kind.gradient(y, target, **options), leaf.grad, rtol=1e-12, atol=1e-14, err_msg=str(options)
        )


@pytest.mark.parametrize("ignored", [False, True])
def test_pytorchs_weighted_mean_is_ours_times_a_factor(ignored):
    """The relation that the docstring of CrossEntropy states."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    for shape in [(7,), (7, 3, 2)]:
        y, target = rng.standard_normal((9, *shape)), rng.integers(0, 7, (9, *shape[1:]))
        options = {"weight": [w + 0.1 for w in WEIGHT]} | ({"ignore_index": 2} if ignored else {})
        of_right = np.where(target == options.get("ignore_index"), 0, np.asarray(options["weight"])[target])
        assert not ignored or (of_right == 0).any()
        for smoothing in (0.0, 0.3):
            given = {k: torch.tensor(v, dtype=torch.float64) if k == "weight" else v for k, v in options.items()}
            theirs = torch.nn.functional.cross_entropy(
                torch.tensor(y), torch.tensor(target), label_smoothing=smoothing, **given
            )
            ours = LOSSES["cross_entropy"].value(y, target, label_smoothing=smoothing, **options)
            assert ours * target.size / of_right.sum() == pytest.approx(theirs.item(), rel=1e-13)


@pytest.mark.parametrize("loss", ["cross_entropy", "nll"])
@pytest.mark.parametrize("form", [CLASS, MAP])
def test_what_is_ignored_counts_nothing(isa, loss, form):
    """No loss, no gradient, neither right nor wrong; images of which all is ignored are as if they were not there, only the
    mean divides by them too."""
    net, x, rng = network(), images(), np.random.default_rng(4)
    shape = (12,) if form == CLASS else (12, 4, 5)
    target = rng.integers(1, 3, shape)
    target[rng.random(shape) < 0.5] = -100
    target[:3] = -100
    wrong = (net.forward(x).reshape(12, -1) if form == CLASS else net.forward(x)).argmax(1) != target
    counted = target != -100
    assert counted.any() and not counted.all()
    found = chaos.evaluate(net, chaos.data.Dataset(x, targets=target), loss=loss, workers=1)
    assert found["wrong"] == (wrong & counted).sum() and found["error"] == found["wrong"] / counted.sum()
    assert found["loss"] == pytest.approx(LOSSES[loss].value(net.forward(x).astype(float), target), rel=1e-5)
    value, gradients = net.loss_and_gradients(x, target, loss)
    for there in (target[3:], np.where(counted, target, 0)[3:]):  # the same by a class of the outputs that is ignored
        rest, others = net.loss_and_gradients(
            x[3:], there, loss, loss_options={"ignore_index": 0} if there.min() == 0 else {}
        )
        assert value == pytest.approx(rest * 9 / 12, rel=1e-6)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, others[name] * 9 / 12, rtol=0, atol=1e-6)
    nothing = chaos.evaluate(net, chaos.data.Dataset(x, targets=np.full(shape, -100)), loss=loss, workers=1)
    assert (nothing["loss"], nothing["error"], nothing["wrong"]) == (0, None, 0)


@pytest.mark.parametrize("shape", [(7,), (5, 3, 4)])
def test_probabilities_of_one_class_are_that_class(isa, shape):
    rng = np.random.default_rng(5)
    net = chaos.Network((4,), [chaos.Linear(7)]) if len(shape) == 1 else network(shape)
    x = images(8, net.input_shape)
    target = rng.integers(0, shape[0], (8, *shape[1:]))
    onehot = np.moveaxis(np.eye(shape[0], dtype=np.float32)[target], -1, 1)
    for options in ({}, {"label_smoothing": 0.2}, {"weight": [*WEIGHT[: shape[0]]], "label_smoothing": 0.1}):
        value, gradients = net.loss_and_gradients(x, target, loss_options=options)
        other, others = net.loss_and_gradients(x, onehot, loss_options=options)
        assert value == pytest.approx(other, rel=1e-6)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, others[name], rtol=0, atol=2e-6)
    for wanted, form in ((target, "class"), (onehot, "probabilities")):
        data = chaos.data.Dataset(x, targets=wanted)
        found = chaos.evaluate(net, data, workers=1)
        assert found["wrong"] == (net.forward(x).argmax(1) != target).sum(), form
        assert found["error"] == found["wrong"] / target.size


def test_training_with_class_weights_is_training_with_weighted_images():
    train, test = chaos.data.load("digits")
    weight = np.linspace(0.2, 2, 10)
    found = []
    for data, options in ((train, {"weight": weight.tolist()}), (weighted(train, weight), None)):
        net = chaos.Network(train.shape, [chaos.Flatten(), chaos.Linear(10)], seed=1)
        run = chaos.train(net, data, test, strategy="sequential", epochs=1, lr=0.01, loss_options=options, progress=False)
        found.append((net.weights.copy(), run.history[0]["train_loss"]))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=0, atol=1e-4)  # float32 sums in two orders, 1437 steps
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def weighted(data, weight):
    return chaos.data.Dataset(data.images, data.labels, weights=weight[data.labels].astype(np.float32))


@pytest.mark.parametrize("loss, form", [(loss, form) for loss, kind in LOSSES.items() for form in kind.targets])
def test_outputs_that_are_not_finite_end_it(isa, loss, form):
    net, rng = network(), np.random.default_rng(6)
    target = {
        CLASS: rng.integers(0, 60, 3),
        MAP: rng.integers(0, 3, (3, 4, 5)),
        VALUES: rng.random((3, 3, 4, 5)).astype(np.float32),
    }[form]
    net.weights[:] = np.nan
    with pytest.raises(ArithmeticError, match="the loss of image 0 is not finite"):
        net.loss_and_gradients(images(3), target, loss)


@pytest.mark.parametrize(
    "loss, options, words",
    [
        ("cross_entropy", {"weight": [1.0, 2.0]}, r"option weight of loss 'cross_entropy' must have 3 numbers, .*, not 2"),
        (
            "cross_entropy",
            {"weight": [1.0, float("nan"), 1.0]},
            "weight of loss 'cross_entropy': number 1 must be .* not nan",
        ),
        ("cross_entropy", {"weight": [1.0, -1.0, 1.0]}, "number 1 must be a number of at least 0, not -1.0"),
        ("cross_entropy", {"weight": [1.0, "1", 1.0]}, "number 1 must be a number of at least 0, not '1'"),
        ("cross_entropy", {"weight": []}, "must have one number per class, not none at all"),
        ("cross_entropy", {"weight": 2.0}, "must be a list of numbers, one per class, not 2.0"),
        ("cross_entropy", {"weight": [[1.0], [1.0], [1.0]]}, r"number 0 must be a number of at least 0, not \[1.0\]"),
        ("cross_entropy", {"ignore_index": 0.5}, "ignore_index .* must be a whole number, not 0.5"),
        ("cross_entropy", {"label_smoothing": 1.5}, "label_smoothing .* at most 1, not 1.5"),
        ("cross_entropy", {"weights": [1.0] * 3}, "no option 'weights'; its options: weight, label_smoothing, ignore_index"),
        ("nll", {"weight": [1.0] * 4}, "option weight of loss 'nll' must have 3 numbers"),
        ("binary_cross_entropy", {"pos_weight": [1.0, 2.0]}, "pos_weight .* must have 3 numbers, one per channel"),
        ("binary_cross_entropy", {"pos_weight": [1.0, 0.0, 1.0]}, "number 1 must be a number of more than 0, not 0.0"),
        ("binary_cross_entropy", {"pos_weight": float("inf")}, "must be a number of more than 0, not inf"),
        ("huber", {"delta": 0.0}, "delta of loss 'huber' must be a number of more than 0, not 0.0"),
        ("smooth_l1", {"beta": -1.0}, "beta of loss 'smooth_l1' must be a number of at least 0, not -1.0"),
        ("kl_div", {"log_target": "no"}, "log_target of loss 'kl_div' must be True or False, not 'no'"),
        ("multi_margin", {"p": 3}, "p of loss 'multi_margin' must be a whole number of at least 1 and at most 2, not 3"),
        ("multi_margin", {"weight": [1.0] * 3}, "must have 60 numbers, one per class"),
        ("rbf", {"j": float("nan")}, "j of loss 'rbf' must be a number, not nan"),
    ],
)
def test_bad_options_are_named(loss, options, words):
    net, form = network(), LOSSES[loss].targets[-1]
    shape = {CLASS: (12,), MAP: (12, 4, 5), VALUES: (12, 3, 4, 5)}[form]
    target = np.zeros(shape, np.float32 if form == VALUES else int)
    with pytest.raises(ValueError, match=words):
        net.loss_and_gradients(images(), target, loss, loss_options=options)
    data = chaos.data.Dataset(images(), targets=target)
    with pytest.raises(ValueError, match=words):
        chaos.train(net, data, loss=loss, loss_options=options, progress=False)
    with pytest.raises(ValueError, match=words):
        chaos.evaluate(net, data, loss=loss, loss_options=options)


@pytest.mark.parametrize(
    "loss, target, options, words",
    [
        ("cross_entropy", np.full((12, 4, 5), 3), {}, "label 3 of image 0 is not in 0..2"),
        ("cross_entropy", np.full((12, 4, 5), -1), {}, "label -1 of image 0 is not in 0..2"),
        ("cross_entropy", np.full((12, 4, 5), -100), {"ignore_index": 255}, "label -100 of image 0 is not in 0..2"),
        ("cross_entropy", np.full(12, 60), {"ignore_index": 1}, "label 60 of image 0 is not in 0..59"),
        (
            "cross_entropy",
            np.full((12, 3, 4, 5), 1.5),
            {},
            r"targets lie in 1.5..1.5, and must be probabilities, from 0 to 1",
        ),
        ("cross_entropy", np.full((12, 3, 4, 5), np.nan), {}, "targets hold NaN or infinity"),
        ("cross_entropy", np.full((12, 4, 5), 0.5), {}, r"loss 'cross_entropy' takes integers of shape \(n,\) or integers"),
        ("multi_margin", np.full(12, -100), {}, "label -100 of image 0 is not in 0..59"),
        ("multi_margin", np.zeros((12, 4, 5), int), {}, r"loss 'multi_margin' takes integers of shape \(n,\), not"),
        ("kl_div", np.full((12, 3, 4, 5), -0.5), {}, "targets lie in -0.5..-0.5, and must be probabilities"),
        ("kl_div", np.full((12, 3, 4, 5), -np.inf), {"log_target": True}, "targets hold NaN or infinity"),
        ("l1", np.zeros(12, int), {}, r"loss 'l1' takes numbers of shape \(n, 3, 4, 5\), not integers of shape \(n,\)"),
        ("huber", np.full((12, 3, 4, 5), np.nan), {}, "targets hold NaN or infinity"),
    ],
)
def test_bad_targets_are_named(loss, target, options, words):
    with pytest.raises(chaos.DataError, match=words):
        network().loss_and_gradients(images(), target, loss, loss_options=options)


def test_the_core_checks_what_it_could_read_past():
    """Whoever calls it: lengths of lists, and classes that only some losses may ignore."""
    net = network()
    inputs = net.take_images(images())["inputs"]

    def run(loss, options, labels):
        engine = _core.Engine(net.plan, net.weights, loss=loss, loss_options=options)
        return engine.run("test", inputs=inputs, labels=labels)["status"]

    labels, maps, values = np.zeros(12, np.int64), np.zeros(240, np.int64), np.zeros(720, np.float32)
    assert run("cross_entropy", [[1.0] * 3], maps) == run("cross_entropy", [[1.0] * 60], labels) == "done"
    assert run("cross_entropy", [[1.0] * 3], values) == run("binary_cross_entropy", [[1.0] * 3], values) == "done"
    assert run("cross_entropy", [], np.full(12, -1)) == run("nll", [], np.full(240, -1)) == "done"
    for loss, options, target, words in (
        ("cross_entropy", [[1.0] * 60], maps, "another length"),
        ("cross_entropy", [[1.0] * 3], labels, "another length"),
        ("nll", [[1.0] * 2], maps, "another length"),
        ("multi_margin", [[1.0] * 59, [1.0], [1.0]], labels, "another length"),
        ("binary_cross_entropy", [], values, "another length"),
        ("binary_cross_entropy", [[1.0] * 2], values, "another length"),
        ("multi_margin", [[], [1.0], [1.0]], np.full(12, -1), "label -1 of image 0"),
        ("cross_entropy", [], np.full(12, -2), "label -2 of image 0"),
        ("cross_entropy", [[]] * 5, labels, "5 loss_options, at most 4"),
    ):
        with pytest.raises(ValueError, match=words):
            run(loss, options, target)


def test_lists_on_the_command_line_and_in_a_run(tmp_path, capsys):
    """--loss-option weight=1,2,... is kept in config.json, continued, and evaluated with."""
    weight, run = ",".join(["0.5", "1"] * 5), str(tmp_path / "run")
    words = ["train", "small", "--data", "digits", "--workers", "1", "--quiet", "--loss-option", f"weight={weight}"]
    words += ["--loss-option", "ignore-index=3"]
    assert cli.main([*words, "--epochs", "1", "--run-dir", run]) == 0
    kept = json.loads((tmp_path / "run/config.json").read_text())["loss_options"]
    assert kept == {"weight": [0.5, 1.0] * 5, "label_smoothing": 0.0, "ignore_index": 3}
    assert cli.main(["train", "small", "--epochs", "2", "--resume", "--run-dir", run, "--quiet"]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", run, "--workers", "1", "--json"]) == 0
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == pytest.approx(last["test_loss"], rel=1e-12) and found["error"] == last["test_error"]
    for pairs, said in (
        (["weight=1,x"], "numbers with commas between, as 1,2.5,1, not '1,x'"),
        (["weight=1,2"], "must have 10 numbers, one per class"),
        (["weight="], "numbers with commas between"),
        (["weight"], "needs a value: weight=VALUE"),
        (["help"], "weight=none"),
    ):
        asked = [word for pair in pairs for word in ("--loss-option", pair)]
        code = 0
        try:
            code = cli.main(["train", "small", "--data", "digits", "--epochs", "1", *asked])
        except SystemExit as ended:
            code = ended.code or 0
        captured = capsys.readouterr()
        assert (code == 0) == (pairs == ["help"]) and said in " ".join((captured.out + captured.err).split())


def test_a_number_or_a_list_of_them():
    kind = LOSSES["binary_cross_entropy"]
    assert kind.parse(["pos_weight=2"]) == {"pos_weight": 2.0}
    assert kind.parse(["pos_weight=2,3"]) == {"pos_weight": [2.0, 3.0]}
    assert kind.resolve({"pos_weight": np.array([2.0, 3.0])}) == kind.resolve({"pos_weight": (2, 3)})
    assert kind.core_arrays(kind.resolve({"pos_weight": 2})) == [[2.0]]
    assert LOSSES["nll"].parse(["weight=none"]) == {"weight": None}
    assert LOSSES["nll"].core_arrays(LOSSES["nll"].resolve({})) == [[]]


def test_lenets_outputs_and_loss(tmp_path):
    """Trained with distances to fixed codes: the nearest code is the answer, and the codes stay as they are."""
    train, test = chaos.data.load("digits")
    layers = [chaos.Flatten(), chaos.Linear(84), chaos.ScaledTanh(), chaos.RBF()]
    for strategy in ("sequential", "averaging", "synchronous"):
        net = chaos.Network(train.shape, layers, seed=1)
        codes = np.array(layers[-1]._codes(), np.float32)
        assert codes.shape == (10, 84) and set(codes.ravel()) == {-1, 1} and len(np.unique(codes, axis=0)) == 10
        before = chaos.evaluate(net, test, loss="rbf", loss_options={"j": 1.0})
        run = chaos.train(
            net,
            train,
            test,
            loss="rbf",
            loss_options={"j": 1.0},
            strategy=strategy,
            workers=1 if strategy == "sequential" else 2,
            epochs=3,
            lr=1e-3,
            progress=False,
        )
        assert run.history[-1]["test_error"] < before["error"] / 2 and run.history[-1]["test_loss"] < before["loss"]
        np.testing.assert_array_equal(net.state_dict()["3.codes"], codes)
    state = net.state_dict()
    inner = chaos.Network(train.shape, layers[:-1])
    inner.load_state_dict({name: state[name] for name in inner.state_dict()})
    distances = np.square(inner.forward(test.images)[:, None] - codes).sum(2)
    np.testing.assert_allclose(net.forward(test.images), -distances, rtol=1e-5)
    np.testing.assert_array_equal(net.predict(test.images), distances.argmin(1))
    net.save(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(chaos.load(tmp_path / "net.safetensors").predict(test.images), net.predict(test.images))


@pytest.mark.parametrize(
    "codes, shape, words",
    [
        (None, (10,), r"the codes have 84 numbers, the input has shape \(10,\)"),
        ([[1, 2], [3, 4]], (2, 1, 1), r"the codes have 2 numbers, the input has shape \(2, 1, 1\)"),
        ([[1, 2], [3]], (2,), "codes must be rows of finite numbers"),
        ([[1, float("nan")]], (2,), "codes must be rows of finite numbers"),
        ([1.0, 2.0], (2,), "codes must be rows of finite numbers"),
        ([], (2,), "codes must be rows of finite numbers"),
        ("12", (2,), "codes must be rows of finite numbers"),
    ],
)
def test_bad_codes_are_named(codes, shape, words):
    with pytest.raises(ValueError, match=words):
        chaos.Network(shape, [chaos.RBF(codes)])


def test_codes_are_kept():
    net = chaos.Network((2,), [chaos.RBF(np.array([[1, 2], [3, 4], [5, 6.5]]))])
    other = chaos.Network.from_config(json.loads(json.dumps(net.config())))
    assert other.config() == net.config()
    np.testing.assert_array_equal(other.forward(np.array([[1, 2.5]], np.float32)), [[-0.25, -6.25, -32.0]])
