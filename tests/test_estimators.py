"""The scikit-learn face: scikit-learn's own checks, and its tools at work on both estimators."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from nets import images

pytest.importorskip("sklearn")
import joblib
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_classification, make_multilabel_classification, make_regression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import chaos
from chaos.estimators import ChaosClassifier, ChaosRegressor
from chaos.estimators.networks import default

# Every check that is expected to fail, and why.
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "SGD visits an image of weight 2 once, with twice the step, and two "
    "equal images one after the other, in an order of other random numbers: near each other, not the same"
}


@parametrize_with_checks(
    [ChaosClassifier(random_state=0), ChaosRegressor(random_state=0)], expected_failed_checks=lambda estimator: EXPECTED
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return found.images[:600], found.target[:600]


@pytest.fixture(scope="module")
def table():
    return make_classification(200, 8, n_informative=5, n_classes=3, random_state=0)


LAYERS = [chaos.Conv2d(6, 3), chaos.ReLU(), chaos.MaxPool2d(2), chaos.Flatten(), chaos.Linear(10)]
ROWS = [chaos.Linear(16), chaos.Tanh(), chaos.Linear(10)]


def quick(**settings):
    return ChaosClassifier(**{"network": LAYERS, "epochs": 4, "lr": 0.01, "random_state": 0} | settings)


# ---- data ----


def test_images_come_in_many_forms(digits):
    """All of them are the same network on the same numbers."""
    x, y = digits
    want = quick().fit(x, y)
    assert want.score(x, y) > 0.9 and want.network_.input_shape == (1, 8, 8) and want.n_features_in_ == 64
    forms = [
        (x[:, None], {}, x.reshape(len(x), 64)),
        (x.reshape(len(x), 64), {"input_shape": (1, 8, 8)}, x),
        (x.reshape(len(x), 64).tolist(), {"input_shape": (1, 8, 8)}, x[:, None]),
        (x[..., None], {"channels": "last"}, x.reshape(len(x), 64)),
        (x, {"channels": "last"}, x[..., None]),
        (x.reshape(len(x), 64), {"channels": "last", "input_shape": (8, 8, 1)}, x[..., None]),
        (x.astype(np.float32), {}, x.tolist()),
    ]
    for given, settings, asked in forms:
        found = quick(**settings).fit(given, y)
        np.testing.assert_array_equal(found.predict_proba(asked), want.predict_proba(x))


def test_channels_last_are_moved():
    x, y = images(20, (3, 8, 8), bytes=True)[0], np.arange(20) % 10
    first = quick().fit(x, y)
    last = quick(channels="last").fit(x.transpose(0, 2, 3, 1), y)
    np.testing.assert_array_equal(first.network_.weights, last.network_.weights)
    np.testing.assert_array_equal(last.decision_function(x.transpose(0, 2, 3, 1)), first.decision_function(x))
    with pytest.raises(ValueError, match=r"X has images of shape \(3, 8, 8\), and .* was fitted to \(8, 8, 3\)"):
        last.predict(x)


def test_sequences():
    x, y = images(30, (2, 16), classes=3)
    net = [chaos.Conv1d(4, 3), chaos.ReLU(), chaos.Flatten(), chaos.Linear(3)]
    given = quick(network=net, input_shape=(2, 16)).fit(x, y)
    table = quick(network=net, input_shape=(2, 16)).fit(x.reshape(30, 32), y)
    assert given.network_.input_shape == (2, 16)
    np.testing.assert_array_equal(given.predict_proba(x), table.predict_proba(x.reshape(30, 32)))


def test_pixels_are_pixels_and_whole_numbers_in_tables_are_numbers(digits):
    pixels = (digits[0] * 15).astype(np.uint8)
    fitted = quick().fit(pixels, digits[1])
    assert fitted.network_.trained_on[0].pixels
    np.testing.assert_array_equal(quick().fit(pixels.astype(int), digits[1]).predict(pixels), fitted.predict(pixels))
    np.testing.assert_array_equal(fitted.predict_proba(pixels.astype(int)), fitted.predict_proba(pixels))
    with pytest.raises(ValueError, match="trained on pixels"):
        fitted.predict(pixels.astype(float))
    rows = np.array([[0, 1000], [5, -1000]] * 10)
    numbers = ChaosClassifier(epochs=20, random_state=0).fit(rows, [0, 1] * 10)
    assert numbers.score(rows, [0, 1] * 10) == 1 and numbers.predict(rows[:1].astype(np.int16)) == [0]


@pytest.mark.parametrize("first", ["fit", "partial_fit"])
def test_rows_mean_what_they_meant_whatever_their_dtype(digits, first):
    rows = (digits[0] * 15).astype(np.uint8).reshape(-1, 64)
    for trained, other in (("f8", "u1"), ("f8", "i8"), ("f8", "f4"), ("i8", "u1"), ("u1", "i8")):
        x, others = rows.astype(trained), rows.astype(other)
        fitted = getattr(quick(network=ROWS), first)(x, digits[1])
        np.testing.assert_array_equal(fitted.predict_proba(others), fitted.predict_proba(x))
        again, same = copy.deepcopy(fitted), copy.deepcopy(fitted)
        again.partial_fit(x[:9], digits[1][:9])
        same.partial_fit(others[:9], digits[1][:9])
        np.testing.assert_array_equal(again.network_.weights, same.network_.weights)
    with pytest.raises(ValueError, match="trained on pixels"):
        fitted.predict(rows / 1.0)


def test_rows_of_other_units_are_told(digits):
    rows = digits[0].reshape(-1, 64)
    fitted = quick(network=ROWS).fit(rows, digits[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.predict(rows[:1] * 0)
        fitted.predict(rows * 8)
    with pytest.warns(UserWarning, match="X: floats from 0 to .*, but ChaosClassifier was fitted to numbers of up to"):
        fitted.predict(rows * 255)


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"input_shape": (1, 8, 7)}, r"64 features, which is not input_shape=\(1, 8, 7\)"),
        ({"channels": "NHWC"}, "channels must be 'first' or 'last', not 'NHWC'"),
        ({"network": [chaos.Linear(4)]}, r"the network has outputs of shape \(4,\), and y needs 10"),
        ({"network": chaos.Network((65,), [chaos.Linear(10)])}, r"inputs of shape \(65,\), and the data are of"),
        ({"epochs": 0}, "epochs"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"loss": "mes"}, "unknown loss 'mes'"),
        ({"lr": -1}, "lr"),
        ({"class_weight": "even"}, "class_weight"),
        ({"early_stopping": True, "validation_fraction": 0}, "validation_fraction"),
        ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction=1.0 of"),
        ({"early_stopping": True, "validation_fraction": 1e-9}, "validation_fraction=1e-09 of"),
    ],
)
def test_wrong_parameters_are_named(digits, settings, error):
    x, y = digits[0].reshape(-1, 64), digits[1]
    with pytest.raises(ValueError, match=error):
        ChaosClassifier(**{"network": [chaos.Linear(10)]} | settings).fit(x, y)


def test_what_is_no_network(digits):
    for network in (5, "small", lambda shape: 7):
        with pytest.raises(TypeError, match=r"network must"):
            ChaosClassifier(network=network).fit(*digits)


# ---- networks ----


def by_shape(shape):
    return [chaos.Flatten(), chaos.Linear(10)]


def by_both(shape, outputs):
    return chaos.Network(shape, [chaos.Flatten(), chaos.Linear(outputs)])


def test_networks_of_all_kinds(digits):
    x, y = digits
    made = [chaos.Flatten(), chaos.Linear(10)]
    net = chaos.Network((1, 8, 8), made, seed=3)
    before = net.weights.copy()
    for network in (made, by_shape, by_both, net):
        found = ChaosClassifier(network=network, epochs=5, lr=0.01, random_state=0).fit(x, y)
        assert found.score(x, y) > 0.8
        assert found.network_ is not network
    np.testing.assert_array_equal(net.weights, before)
    tuned = ChaosClassifier(network=net, epochs=1, lr=1e-12, update="sgd").fit(x, y)
    np.testing.assert_allclose(tuned.network_.weights, before, atol=1e-6)  # from the weights that it has


def test_a_torch_module_is_one(digits):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    before = module[1].weight.detach().numpy().copy()
    found = ChaosClassifier(network=module, epochs=5, lr=0.01, random_state=0).fit(*digits)
    assert found.score(*digits) > 0.8 and (module[1].weight.detach().numpy() == before).all()
    found = ChaosClassifier(network=lambda shape: module, epochs=1, lr=1e-12, update="sgd").fit(*digits)
    np.testing.assert_allclose(found.network_.state_dict()["1.weight"], before, atol=1e-6)


@pytest.mark.parametrize(
    "shape, poolings",
    [
        ((5,), 0),
        ((1, 8, 8), 1),
        ((1, 28, 28), 3),
        ((3, 32, 32), 3),
        ((3, 224, 224), 6),
        ((1, 1, 40), 0),
        ((2, 64), 4),
        ((2, 3), 0),
    ],
)
def test_the_default_fits_the_shape(shape, poolings):
    x = images(4, shape)[0]
    net = default(shape, 3, 0, x, None)
    kinds = [type(node.layer).__name__ for node, _ in net.nodes()]
    assert net.output_shape == (3,) and sum(kind.startswith("MaxPool") for kind in kinds) == poolings
    assert net.n_parameters < 700_000


def test_the_default_takes_data_as_they_are():
    rng = np.random.default_rng(0)
    x = rng.normal([0, 1e4, -3], [1e-3, 10, 100], (200, 3))
    x = np.column_stack([x, np.full(200, 7.0)])  # and one that says nothing
    y = 1e6 + 1e5 * (x[:, 0] * 1e3 + (x[:, 1] - 1e4) / 10)
    found = ChaosRegressor(random_state=0).fit(x, y)
    assert found.score(x, y) > 0.95
    net = found.network_
    scaled = x.astype(np.float32) * net.state_dict()["input_scale.weight"] + net.state_dict()["input_scale.bias"]
    np.testing.assert_allclose(scaled.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 1, 0], atol=0.01)
    np.testing.assert_allclose(net.forward(x)[:, 0], found.predict(x), rtol=1e-6)  # alone it gives the same
    assert set(net.frozen) == {"input_scale.weight", "input_scale.bias", "output_scale.weight", "output_scale.bias"}


# ---- targets ----


def test_string_labels_and_column_of_labels(digits):
    x, y = digits
    names = np.array([f"digit {i}" for i in range(10)], object)[y]
    found, numbers = quick().fit(x, names), quick().fit(x, y)
    assert list(found.classes_) == [f"digit {i}" for i in range(10)]
    assert (found.predict(x) == np.char.add("digit ", numbers.predict(x).astype(str))).all()
    assert found.network_.class_names == tuple(found.classes_) and numbers.network_.class_names is None
    with pytest.warns(Warning, match="column-vector"):
        quick().fit(x, y[:, None])


def test_several_labels():
    x, y = make_multilabel_classification(150, 10, n_classes=4, random_state=0)
    found = ChaosClassifier(random_state=0, epochs=30).fit(x, y)
    shares = found.predict_proba(x)
    assert shares.shape == (150, 4) and found.network_.output_shape == (4,)
    np.testing.assert_array_equal(found.predict(x), shares > 0.5)
    np.testing.assert_allclose(np.exp(found.predict_log_proba(x)), shares, atol=1e-6)
    assert ((shares > 0.5) == y).mean() > 0.8


def test_two_classes_have_one_decision(table):
    x, y = table[0], table[1] > 0
    found = ChaosClassifier(random_state=0, epochs=5).fit(x, y)
    decision, shares = found.decision_function(x), found.predict_proba(x)
    assert decision.shape == (200,) and shares.shape == (200, 2)
    np.testing.assert_allclose(1 / (1 + np.exp(-decision)), shares[:, 1], atol=1e-6)
    np.testing.assert_array_equal(found.predict(x), decision > 0)
    np.testing.assert_allclose(np.exp(found.predict_log_proba(x)), shares, atol=1e-6)


def test_regression_of_one_and_several_numbers():
    x, y = make_regression(200, 5, n_targets=2, random_state=0)
    both = ChaosRegressor(random_state=0).fit(x, y)
    assert both.predict(x).shape == (200, 2) and both.score(x, y) > 0.95
    one = ChaosRegressor(random_state=0).fit(x, y[:, 0])
    assert one.predict(x).shape == (200,) and one.score(x, y[:, 0]) > 0.95


def test_weights_are_those_of_the_data_set(table):
    """Against chaos.train with Dataset(weights=...)."""
    x, y = table
    weights = np.random.default_rng(0).uniform(0, 2, len(y))
    settings = dict(epochs=2, lr_schedule="constant", lr=1e-3, update="adam", batch_size=16, strategy="sequential")
    net = chaos.Network((8,), [chaos.Linear(3)], seed=4)
    found = ChaosClassifier(network=net, random_state=0, class_weight={0: 3, 1: 1, 2: 0.5}, **settings)
    found.fit(x, y, sample_weight=weights)
    by_class = np.array([3, 1, 0.5])[y]
    data = chaos.data.Dataset(x, y, weights=weights * by_class)
    chaos.train(net, data, seed=found._seed, progress=False, **settings)
    np.testing.assert_array_equal(found.network_.weights, net.weights)
    balanced = ChaosClassifier(network=net, random_state=0, class_weight="balanced", **settings).fit(x[:80], y[:80])
    assert not np.array_equal(balanced.network_.weights, found.network_.weights)
    with pytest.raises(ValueError, match="needs all images at once"):
        balanced.partial_fit(x, y)


# ---- training ----


def test_early_stopping_keeps_the_best(table):
    x, y = table
    found = ChaosClassifier(early_stopping=True, n_iter_no_change=3, lr=0.05, lr_schedule="constant", random_state=1)
    found.fit(x, y)
    losses = found.validation_loss_curve_
    assert found.n_iter_ == len(losses) == len(found.loss_curve_) < found.epochs
    best = int(np.argmin(losses))
    assert len(losses) - 1 - best >= 3 or losses[best] > min(losses[:best]) - found.tol
    data = chaos.data.Dataset(x, y)
    _, held_out = found._parts(found._images(x), data.labels, None)
    assert len(held_out) == 20 and np.bincount(held_out.labels).min() >= 6  # stratified
    assert chaos.evaluate(found.network_, held_out, workers=1)["loss"] == pytest.approx(min(losses), rel=1e-5)


def test_warm_start_goes_on(table):
    x, y = table
    found = ChaosClassifier(warm_start=True, epochs=2, random_state=0).fit(x, y)
    first, net = list(found.loss_curve_), found.network_
    found.fit(x, y)
    assert found.network_ is net and found.n_iter_ == 4
    assert found.loss_curve_[:2] == first and found.loss_curve_[2] < first[1]
    with pytest.raises(ValueError, match="not among"):
        found.fit(x, y + 1)
    cold = ChaosClassifier(epochs=2, random_state=0).fit(x, y)
    again = cold.fit(x, y)
    assert again.loss_curve_ == first  # the same random state, the same training


def test_partial_fits_are_a_training(table):
    """One pass each, in the order of the data: the bits of chaos.train without shuffling, also across pickle."""
    x, y = table
    settings = dict(lr=0.01, update="adam", batch_size=16, strategy="sequential", shuffle=False)
    net = chaos.Network((8,), [chaos.Linear(5), chaos.Tanh(), chaos.Linear(3)])
    found = ChaosClassifier(network=net, **settings)
    for epoch in range(3):
        found.partial_fit(x, y, classes=[0, 1, 2])
        found = pickle.loads(pickle.dumps(found)) if epoch == 1 else found
    run = chaos.train(
        net, chaos.data.Dataset(x, y), epochs=3, lr_schedule="constant", progress=False, **settings
    )  # fmt: skip
    np.testing.assert_array_equal(found.network_.weights, net.weights)
    assert found.n_iter_ == 3 and found.loss_curve_ == pytest.approx([r["train_loss"] for r in run.history], rel=1e-9)


def test_partial_fit_goes_on_from_fit(table):
    """With the moments of the fit."""
    x, y = table
    settings = dict(lr=0.01, update="adam", batch_size=16, strategy="sequential", shuffle=False, lr_schedule="constant")
    net = chaos.Network((8,), [chaos.Linear(3)])
    found = ChaosClassifier(network=net, epochs=2, **settings).fit(x, y)
    found = pickle.loads(pickle.dumps(found)).partial_fit(x, y)
    chaos.train(net, chaos.data.Dataset(x, y), epochs=3, progress=False, **settings)
    np.testing.assert_array_equal(found.network_.weights, net.weights)


def test_parameters_change_between_partial_fits(table):
    """The moments go on where the rule is the same, and begin anew where it is another one."""
    x, y = table
    settings = dict(lr=0.01, batch_size=16, strategy="sequential", shuffle=False, lr_schedule="constant")
    net = chaos.Network((8,), [chaos.Linear(3)])
    slower = ChaosClassifier(network=net, update="adam", **settings).fit(x, y).set_params(lr=0.001).partial_fit(x, y)
    same = ChaosClassifier(network=net, update="adam", **settings).fit(x, y)
    same.set_params(lr=0.001, update_options={"beta1": 0.9}).partial_fit(x, y)
    np.testing.assert_array_equal(slower.network_.weights, same.network_.weights)
    for rule in ("momentum", "sgd"):
        other = ChaosClassifier(network=net, update="adam", epochs=2, **settings).fit(x, y)
        fresh = ChaosClassifier(network=other.network_, update=rule, **settings).partial_fit(x, y)
        other.set_params(update=rule).partial_fit(x, y)
        np.testing.assert_array_equal(other.network_.weights, fresh.network_.weights)


def test_classes_of_partial_fits(table):
    x, y = table
    found = ChaosClassifier(random_state=0).partial_fit(x[y < 2], y[y < 2], classes=[0, 1, 2])
    found.partial_fit(x, y)
    with pytest.raises(ValueError, match=r"classes \[7\], which are not among \[0, 1, 2\]"):
        found.partial_fit(x[:1], [7])
    with pytest.raises(ValueError, match="not those of the first call"):
        found.partial_fit(x, y, classes=[0, 1])
    streamed = ChaosRegressor(random_state=0)
    for row, value in zip(x[:5], y[:5].astype(float), strict=True):
        streamed.partial_fit(row[None], [value])
    assert streamed.n_iter_ == 5 and np.isfinite(streamed.predict(x)).all()


def test_several_workers(table):
    x, y = table
    for n_jobs in (2, -1):
        assert ChaosClassifier(n_jobs=n_jobs, random_state=0).fit(x, y).score(x, y) > 0.8
    settings = dict(strategy="synchronous", epochs=3, random_state=0)
    one, two = (ChaosClassifier(n_jobs=n, **settings).fit(x, y).partial_fit(x, y) for n in (1, 2))
    np.testing.assert_array_equal(one.network_.weights, two.network_.weights)


def test_verbose_and_callbacks(table, capfd):
    class Count(chaos.Callback):
        epochs = 0

        def epoch_end(self, event, record):
            self.epochs += 1

    count = Count()
    ChaosClassifier(epochs=2, callbacks=[count]).fit(*table)
    assert count.epochs == 2 and capfd.readouterr().err == ""
    ChaosClassifier(epochs=2, verbose=True).fit(*table)
    assert "epoch 2/2" in capfd.readouterr().err


# ---- scikit-learn's tools ----


def test_in_a_pipeline_and_cross_validated(table):
    x, y = table
    model = make_pipeline(StandardScaler(), ChaosClassifier(epochs=30, random_state=0))
    assert cross_val_score(model, x, y, cv=3).mean() > 0.6
    assert cross_val_score(ChaosRegressor(epochs=5), x, y, cv=2).shape == (2,)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_grid_search(digits, backend):
    search = GridSearchCV(quick(), {"lr": [1e-7, 1e-2], "network": [LAYERS[-2:], LAYERS]}, cv=2, n_jobs=2)
    with joblib.parallel_config(backend):
        search.fit(digits[0][:200], digits[1][:200])
    assert search.best_params_["lr"] == 1e-2 and search.best_score_ > 0.6
    alone = clone(search.best_estimator_).fit(digits[0][:200], digits[1][:200])
    np.testing.assert_array_equal(alone.network_.weights, search.best_estimator_.network_.weights)


def test_calibrated(table):
    x, y = table
    found = CalibratedClassifierCV(ChaosClassifier(epochs=5, random_state=0), cv=2).fit(x, y)
    np.testing.assert_allclose(found.predict_proba(x).sum(1), 1, rtol=1e-6)


def test_clone_pickle_and_joblib(digits, tmp_path):
    found = quick(network=by_shape).fit(*digits)
    copied = clone(found)
    assert not hasattr(copied, "network_") and copied.get_params() == found.get_params()
    joblib.dump(found, tmp_path / "model.joblib")
    for again in (pickle.loads(pickle.dumps(found)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(again.predict_proba(digits[0]), found.predict_proba(digits[0]))


def test_limits_of_blas_end_with_the_last_training():
    """As trainings in several threads overlap."""
    from threadpoolctl import threadpool_info

    from chaos import blas

    def numbers():
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    before = numbers()
    first, second = blas.one_thread(), blas.one_thread()
    first.__enter__()
    second.__enter__()
    assert set(numbers()) == {1}
    first.__exit__(None, None, None)
    assert set(numbers()) == {1}
    second.__exit__(None, None, None)
    assert numbers() == before
