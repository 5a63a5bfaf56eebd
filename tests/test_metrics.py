"""Metrics of evaluations: against their definitions, against scikit-learn, and in the records of trainings."""

import numpy as np
import pytest

import chaos
from chaos.cli import main
from chaos.losses import CLASS, MAP, VALUES
from chaos.training import metrics, parts
from chaos.training.metrics import Answers


@pytest.fixture
def answers():
    """Of classes that are rare, never right and never said; half of the outputs are on a grid, so that some are equal."""
    rng = np.random.default_rng(1)
    y = rng.standard_normal((400, 6)).astype(np.float32)
    y[:200] = np.round(y[:200] * 2) / 2
    y[:, 4] -= 20
    target = rng.choice(5, 400, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    y[np.arange(400), target] += 1.5
    return Answers("classes", target, y)


def value(name, answers):
    return metrics.measure(metrics.resolve([name]), answers)[name]


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_metrics_of_classes_are_scikit_learns(answers, caplog):
    sk = pytest.importorskip("sklearn.metrics")
    t, p = answers.target, answers.predicted
    every = dict(labels=range(6), zero_division=0)
    assert value("accuracy", answers) == value("top_1", answers) == sk.accuracy_score(t, p)
    assert value("balanced_accuracy", answers) == pytest.approx(sk.balanced_accuracy_score(t, p))
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        assert value(name, answers) == pytest.approx(score(t, p, average="macro", zero_division=0))
        np.testing.assert_allclose(value(f"{name}_per_class", answers), score(t, p, average=None, **every))
    assert value("confusion_matrix", answers) == sk.confusion_matrix(t, p, labels=range(6)).tolist()
    apart = Answers("classes", answers.target, answers.outputs + np.random.default_rng(0).uniform(0, 1e-3, (400, 6)))
    wanted = sk.top_k_accuracy_score(t, apart.outputs, k=3, labels=range(6))
    assert value("top_3", apart) == wanted < value("top_6", apart) == 1
    scores = np.exp(answers.outputs.astype(np.float64))
    scores /= scores.sum(1, keepdims=True)
    assert value("matthews_corrcoef", answers) == sk.matthews_corrcoef(t, p)
    assert value("neg_log_loss", answers) is None and "metric neg_log_loss: y_true" in caplog.text  # a class is missing
    every_class = Answers("classes", np.where(np.arange(400) < 6, np.arange(400), t), answers.outputs)
    wanted = -sk.log_loss(every_class.target, scores, labels=range(6))
    assert value("neg_log_loss", every_class) == pytest.approx(wanted)


def test_labels_that_are_right_or_wrong_each():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    target = (rng.random((50, 4)) < [0.5, 0.2, 0.9, 0]).astype(np.int64)
    found = Answers("labels", target, (rng.standard_normal((50, 4)) + target).astype(np.float32))
    p = (found.outputs > 0).astype(int)
    assert value("accuracy", found) == (p == target).mean()
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        assert value(name, found) == pytest.approx(score(target, p, average="macro", zero_division=0))
        np.testing.assert_allclose(value(f"{name}_per_class", found), score(target, p, average=None, zero_division=0))


def test_errors_of_values_are_scikit_learns():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    target = rng.standard_normal((60, 3)).astype(np.float32)
    target[:, 2] = 0.5  # nothing to explain
    y = target + 0.3 * rng.standard_normal((60, 3)).astype(np.float32)
    found = Answers("values", target, y)
    t, y = target.astype(np.float64), y.astype(np.float64)
    for name, wanted in (
        ("mae", sk.mean_absolute_error(t, y)),
        ("mse", sk.mean_squared_error(t, y)),
        ("rmse", np.sqrt(sk.mean_squared_error(t, y))),
        ("r2", sk.r2_score(t, y)),
        ("max_error", np.abs(t - y).max()),
        ("neg_median_absolute_error", -sk.median_absolute_error(t, y)),
    ):
        assert value(name, found) == pytest.approx(wanted, rel=1e-6), name
    one = Answers("values", found.target[:, :1], found.outputs[:, :1])
    assert value("max_error", one) == pytest.approx(sk.max_error(t[:, 0], y[:, 0]), rel=1e-6)
    assert value("r2", Answers("values", found.target[:, 2:], found.target[:, 2:])) == 1


def test_calibration_is_its_definition(answers):
    y = answers.outputs.astype(np.float64)
    shares = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    sure, right = shares.max(1), answers.predicted == answers.target
    wanted = 0.0
    for k in range(15):
        there = (sure > k / 15) & (sure <= (k + 1) / 15)
        if there.any():
            wanted += there.mean() * abs(right[there].mean() - sure[there].mean())
    assert value("ece", answers) == pytest.approx(wanted) and wanted > 0.01
    certain = Answers("classes", np.array([0, 1]), np.array([[900, 0], [900, 0]], np.float32))
    assert value("ece", certain) == 0.5


def test_targets_of_every_form_become_answers():
    rng = np.random.default_rng(4)
    y = rng.standard_normal((5, 3, 2, 2)).astype(np.float32)
    maps = rng.integers(-1, 3, (5, 2, 2))
    found = metrics.answers(MAP, "cross_entropy", y, maps.reshape(-1))
    counts = maps >= 0
    assert (found.target == maps[counts]).all() and (found.predicted == y.argmax(1)[counts]).all()
    found = metrics.answers(CLASS, "cross_entropy", y, np.arange(5))
    assert found.outputs.shape == (5, 12) and (found.target == np.arange(5)).all()
    shares = rng.dirichlet(np.ones(3), (5, 2, 2)).transpose(0, 3, 1, 2).astype(np.float32)
    found = metrics.answers(VALUES, "cross_entropy", y, shares.reshape(-1))
    assert (found.target == shares.argmax(1).reshape(-1)).all() and found.kind == "classes"
    assert metrics.answers(VALUES, "binary_cross_entropy", y, shares.reshape(-1)).kind == "labels"
    assert metrics.answers(VALUES, "mse", y, shares.reshape(-1)).kind == "values"


@pytest.mark.parametrize(
    "given, error, words",
    [
        ("accuracy", ValueError, "metrics must be a list of names and functions, not 'accuracy'"),
        (["acc"], ValueError, "unknown metric 'acc'; .*known: accuracy, .*top_K"),
        (["top_0"], ValueError, "unknown metric 'top_0'"),
        (["f1", "f1"], ValueError, "metric 'f1' is named twice"),
        ([3], TypeError, "a metric must be a name or a function"),
        ([lambda t, y: 0], ValueError, "a metric needs a name"),
        (["mae"], ValueError, "metric 'mae' is of real numbers as targets; loss 'cross_entropy' has here one right class"),
    ],
)
def test_what_is_no_metric_is_refused(digits, given, error, words):
    with pytest.raises(error, match=words):
        chaos.train(chaos.models.small(), digits[0][:20], digits[1], epochs=1, progress=False, metrics=given)


def mean_output(targets, outputs):
    assert targets.shape == (len(outputs),) and outputs.shape[1] == 10
    return np.float32(outputs.mean())


@pytest.mark.parametrize("workers", [1, 2])
def test_records_have_what_was_asked_for(digits, workers):
    class Counts(chaos.training.Threads):
        def start(self, job):
            self.phases = []
            engine = super().start(job)
            outer = self

            class Counted:
                position = property(lambda self: engine.position)
                stop, clear = engine.stop, engine.clear

                def run(self, what, **arguments):
                    outer.phases.append(what)
                    return engine.run(what, **arguments)

            return Counted()

    net, runner = chaos.models.small(seed=0), Counts()
    names = ["accuracy", "confusion_matrix", "top_3", mean_output]
    run = chaos.train(
        net,
        digits[0][:300],
        digits[1],
        validation_split=0.2,
        epochs=2,
        lr=0.01,
        progress=False,
        metrics=names,
        workers=workers,
        monitor="validation_accuracy",
        runner=runner,
    )
    record = run.history[-1]
    assert runner.phases == ["test"] * 4  # no pass of its own
    for phase in ("validation", "test"):
        assert record[f"{phase}_accuracy"] == pytest.approx(1 - record[f"{phase}_error"], abs=1e-12)
        matrix = np.array(record[f"{phase}_confusion_matrix"])
        assert matrix.trace() / matrix.sum() == pytest.approx(record[f"{phase}_accuracy"])
        assert record[f"{phase}_top_3"] >= record[f"{phase}_accuracy"]
    assert np.array(record["test_confusion_matrix"]).sum(1).tolist() == np.bincount(digits[1].labels).tolist()
    assert record["test_mean_output"] == pytest.approx(net.forward(digits[1].images).mean(), rel=1e-5)
    best = [one["validation_accuracy"] for one in run.history]
    assert run.monitored == "validation_accuracy" and run.best_epoch == 1 + int(np.argmax(best))


def test_evaluate_measures_too(digits):
    net = chaos.models.small(seed=0)
    found = chaos.evaluate(net, digits[1], metrics=["accuracy", "f1_per_class"])
    assert found["accuracy"] == pytest.approx(1 - found["error"]) and len(found["f1_per_class"]) == 10


def test_of_several_outputs_those_are_judged_that_can_be_wrong(digits):
    """Here the second term, of the first output; not its neighbours' numbers."""
    start = chaos.Input((1, 29, 29))
    hidden = chaos.Tanh()(chaos.Linear(12)(chaos.Flatten()(start)))
    net = chaos.Network(start, [chaos.Linear(3)(hidden), chaos.Linear(10)(hidden)], seed=1)
    values = np.random.default_rng(0).standard_normal((80, 3)).astype(np.float32)
    data = chaos.data.Dataset(digits[0].images[:80], targets=(values, digits[0].labels[:80]))
    options = dict(loss="mse@0 + cross_entropy@1", lr=0.01, workers=1, progress=False, class_weight="balanced")
    run = chaos.train(net, data, epochs=2, metrics=["accuracy", "top_10"], validation_split=0.25, **options)
    _, held = parts.split(digits[0].labels[:80], 80, 0.25, 0)
    wanted = (net.forward(digits[0].images[held])[1].argmax(1) == digits[0].labels[held]).mean()
    record = run.history[-1]
    assert record["validation_accuracy"] == pytest.approx(wanted) == pytest.approx(1 - record["validation_error"])
    assert record["validation_top_10"] == 1


def test_the_command_evaluates_metrics(digits, tmp_path, capsys):
    net = chaos.models.small(seed=0)
    net.save(tmp_path / "net.safetensors")
    words = [
        "evaluate",
        str(tmp_path / "net.safetensors"),
        "--data",
        "digits",
        "--metrics",
        "f1,confusion_matrix,recall_per_class",
    ]
    assert main(words) == 0
    found = chaos.evaluate(net, digits[1], metrics=["f1", "confusion_matrix"])
    lines = capsys.readouterr().out.splitlines()
    assert f"f1          {found['f1']:.4g}" in lines
    at = lines.index("confusion_matrix ")
    assert [list(map(int, line.split())) for line in lines[at + 1 : at + 11]] == found["confusion_matrix"]
    assert main([*words[:-1], "f2"]) == 2 and "unknown metric 'f2'" in capsys.readouterr().err


def test_a_function_that_gives_no_number(digits):
    def words(targets, outputs):
        return "good"

    with pytest.raises(ValueError, match="metric 'words' must give a number"):
        chaos.train(chaos.models.small(), digits[0][:20], digits[1], epochs=1, progress=False, metrics=[words])
    with pytest.raises(ValueError, match="monitor_mode must be min or max"):
        chaos.train(chaos.models.small(), digits[0][:20], digits[1], progress=False, metrics=[words], monitor="test_words")
