"""Augmentation: the core agrees with its definition, what happens to an image depends on seed, epoch, image and step alone,
numbers are distributed as they should be, targets are mixed with images, and evaluations see images as they are."""

import functools
import math

import numpy as np
import pytest

import chaos
from chaos import _core, augment, reference, virtual
from chaos.augment import define, preview, steps
from chaos.augment.base import Draws
from chaos.augment.mixing import beta
from chaos.layers import random
from chaos.network import run_key

MOVES = [
    "shift:2",
    "shift:30x4",
    "shift:2.5,subpixel=yes",
    "crop:4",
    "crop:40,padding_mode=reflect",
    "crop:5,padding_mode=edge",
    "rotation:15",
    "rotation:180,padding_mode=reflect",
    "rotation:40..60,padding_mode=edge",
    "scale:0.2,fill=3",
    "scale:0.3..3,independent=yes",
    "shear:20,-10..5",
    "flip",
    "vertical_flip:p=1",
    ["flip", "crop:4", "vertical_flip"],
    ["rotation:15", "scale:0.2", "shift:2,p=0.5", "flip"],
    ["shift:2", "shift:2,fill=50", "rotation:9"],  # two resamplings
    "elastic",
    "elastic:9,0.7",
    ["elastic:20,3,padding_mode=reflect", "rotation:10,padding_mode=reflect", "elastic:10,1.5,padding_mode=reflect"],
]
PAINTS = ["cutout:5", "cutout:4x9,3,7", "color_jitter:0.5,0.4", "color_jitter:0..2,1.5..3,p=0.5", "gaussian_noise:20"]
MIXES = [
    "mixup",
    "mixup:1,p=0.5",
    "mixup:3",
    "cutmix",
    ["shift:2", "cutmix:0.5", "gaussian_noise:3"],
    ["mixup", "rotation:9"],
]
SHAPES = [(1, 28, 28), (3, 9, 7), (2, 1, 5), (1, 6, 1), (1, 21, 37)]


def pictures(shape, bytes_, n=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape)).astype(np.uint8 if bytes_ else np.float32)


def seen(images, asked, seed=0, epoch=1, workers=1, order=None, **options):
    """What workers take of images, through a network that hands them on."""
    net = chaos.Network(images.shape[1:], [chaos.Flatten() if images.ndim > 2 else chaos.Identity()])
    engine = _core.Engine(
        net.plan, net.weights, workers, augment=[step.core() for step in steps(asked)], strategy="chaos", **options
    )
    out = np.zeros((len(images), images[0].size), np.float32)
    key = run_key(seed, epoch)
    engine.run("forward", net.take_images(images)["inputs"], order=order, out=out, key=key, augmented=True)
    return out.reshape(images.shape)


def bound(images, asked):
    """How far single precision may stray from the definition. With u = 2^-24, R the largest number that is seen and S the
    larger side: a place that a pixel comes from is a sum of few terms whose partial sums are at most 2 S over the smallest
    scale, rounded 6 times; a displacement of alpha is a sum of at most 2 (6 sigma + 3) terms, whose weights add up
    to 1. Interpolation has slopes of at most 2 R in two directions, and 6 roundings. What follows multiplies errors by at
    most 10, and adds roundings of numbers below 10 R; a normal number is at most 5.8, and has an error of less than 32 u."""
    u, largest = 2.0**-24, 1.0 if images.dtype == np.uint8 else 255.0
    unit = 1 / 127.5 if images.dtype == np.uint8 else 1.0
    place, passes, more = 0.0, 0, 0.0
    for step in steps(asked):
        if isinstance(step, augment.base.Move):
            passes += 1
            smallest = min(getattr(step, "factor", (1,)))
            place += 6 * u * (2 + 2 * max(images.shape[2:]) / min(smallest, 1))
        if isinstance(step, augment.Elastic):
            place += u * step.alpha * (12 * step.sigma + 6)
        if isinstance(step, augment.GaussianNoise):
            more += 32 * u * 5.8 * step.sigma * unit
    return 10 * (4 * largest * place + 6 * (passes + 2) * u * largest) + more


@functools.cache
def defined(shape, bytes_):
    """[(steps, images by the definition), ...], the same for all instruction sets."""
    cases = [*MOVES, *PAINTS, *MIXES, *(["color_jitter:0.5,0.4,0.6"] if shape[0] == 3 else [])]
    return [(asked, define(pictures(shape, bytes_), asked, seed=3, epoch=2)) for asked in cases]


@pytest.mark.parametrize("bytes_", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_core_agrees_with_the_definition(isa, shape, bytes_):
    images = pictures(shape, bytes_)
    for asked, want in defined(shape, bytes_):
        got = seen(images, asked, seed=3, epoch=2)
        assert abs(got - want).max() <= bound(images, asked), asked


def test_vectors_and_sequences_take_what_needs_no_rows(isa):
    for shape in ((7,), (3, 9)):
        images = pictures(shape, False)
        asked = ["gaussian_noise:2", "mixup:0.4"]
        got, want = seen(images, asked), define(images.reshape(6, -1, 1, 1), asked).reshape(images.shape)
        assert abs(got - want).max() <= bound(images.reshape(6, -1, 1, 1), asked)
        with pytest.raises(ValueError, match=r"Flip\(\) changes images \(channels, height, width\), not"):
            steps("flip")[0].check(shape)


def test_places_change_without_arithmetic(isa):
    """Flips, crops and whole shifts keep the bits of numbers, and of images that nothing happens to."""
    images = np.random.default_rng(0).standard_normal((20, 2, 8, 9)).astype(np.float32) + 10
    got = seen(images, ["flip", "crop:3,fill=-1", "vertical_flip", "shift:1,fill=-1"], seed=1)
    known = {*images.ravel().tolist(), -1.0}
    assert {*got.ravel().tolist()} <= known and -1.0 in got
    np.testing.assert_array_equal(seen(images, [f"{kind}:p=0" for kind in augment.KINDS if kind != "cutmix"]), images)
    np.testing.assert_array_equal(seen(images, "rotation:0"), images)


def test_a_move_moves_as_its_name_says():
    image = np.zeros((1, 1, 5, 5), np.float32)
    image[0, 0, 1, 3] = 1  # above and to the right of the centre
    assert define(image, "flip:1")[0, 0, 1, 1] == 1
    assert define(image, "vertical_flip:1")[0, 0, 3, 3] == 1
    np.testing.assert_allclose(define(image, "rotation:90..90")[0, 0, 1, 1], 1, atol=1e-12)  # counter-clockwise
    np.testing.assert_allclose(define(image, "scale:2..2")[0, 0, 0, 4], 1, atol=1e-12)  # outwards
    np.testing.assert_allclose(define(image, "shear:45..45")[0, 0, 1].argmax(), 2, atol=0)  # rows above lean to the left


# ---- whoever does it, whenever ----


@pytest.mark.parametrize("asked", [["elastic", "flip", "cutout:7"], ["shift:2", "cutmix:1", "gaussian_noise:9"]])
def test_any_worker_in_any_order_sees_the_same(digits, asked):
    images = digits[0].images[:200]
    alone = seen(images, asked, seed=5)
    for workers in (2, 3):
        order = np.random.default_rng(workers).permutation(len(images))
        np.testing.assert_array_equal(seen(images, asked, 5, workers=workers, order=order, batch_size=3), alone[order])
    assert (seen(images, asked, 6) != alone).any() and (seen(images, asked, 5, epoch=2) != alone).any()
    np.testing.assert_array_equal(preview(digits[0], asked, n=200, seed=5)[:1], seen(digits[0].images, asked, 5)[:1])


def blank(shape, outputs=2):
    """A network of one linear layer whose weights are 0."""
    net = chaos.Network(shape, [chaos.Flatten(), chaos.Linear(outputs, bias=False)])
    net.weights[:] = 0
    return net


@pytest.mark.parametrize("runner", [None, "virtual"])
def test_a_training_sees_what_a_preview_shows(runner):
    """With the loss -y_label and a learning rate of 1 the weights of the label become the sum of the images."""
    data = chaos.data.Dataset(pictures((1, 6, 7), True, n=1), [1], classes=2)
    asked = ["rotation:20", "elastic:9,2", "color_jitter:0.2,0.2", "gaussian_noise:4"]
    net = blank((1, 6, 7))
    made = virtual.Virtual() if runner else None
    chaos.train(
        net, data, loss="score", lr=1, lr_decay=1, epochs=3, augment=asked, seed=9, workers=1, progress=False, runner=made
    )
    want = np.zeros(42, np.float32)
    for epoch in (1, 2, 3):
        want += preview(data, asked, seed=9, epoch=epoch).reshape(-1)
    np.testing.assert_array_equal(net.state_dict()["1.weight"][1], want)


def train(net, data, asked, **options):
    options = dict(epochs=2, lr=0.02, progress=False, seed=4, augment=asked) | options
    return chaos.train(net, data, **options)


ASKED = ["shift:2", "elastic:20,3", "mixup:0.3,p=0.5", "gaussian_noise:5"]


@pytest.mark.parametrize("strategy", ["synchronous", "hybrid"])
def test_the_same_weights_for_any_number_of_workers(few_digits, strategy):
    ends = []
    for workers in (1, 2, 3):
        net = chaos.models.small()
        train(net, few_digits[0][:60], ASKED, strategy=strategy, workers=workers, batch_size=12)
        ends.append(net.weights.copy())
    assert (ends[0] == ends[1]).all() and (ends[0] == ends[2]).all()


def test_resumed_in_the_middle_of_an_epoch(few_digits, tmp_path):
    data = chaos.data.Dataset(np.tile(few_digits[0].images, (30, 1, 1, 1)), np.tile(few_digits[0].labels, 30))
    whole, net = chaos.models.small(), chaos.models.small()
    train(whole, data, ASKED, workers=1)

    class Stop(chaos.Callback):
        interval = 50

        def step(self, event):
            if event.epoch == 2:
                event.stop()

    run = train(net, data, ASKED, workers=1, run_dir=tmp_path / "r", callbacks=[Stop()])
    assert run.stopped and len(run.history) == 1
    again = chaos.models.small()
    with pytest.raises(chaos.CheckpointError, match="augment"):
        train(again, data, "shift:3", workers=1, run_dir=tmp_path / "r", resume=True)
    train(again, data, ASKED, workers=1, run_dir=tmp_path / "r", resume=True)
    assert (again.weights == whole.weights).all() and (net.weights != whole.weights).any()


def test_replayed(few_digits, tmp_path):
    net = chaos.models.small()
    with virtual.Traced(tmp_path / "t") as runner:
        train(net, few_digits[0], ASKED, workers=3, runner=runner)
    assert (virtual.replay(tmp_path / "t", few_digits[0], jobs=2).weights == net.weights).all()


def test_virtual_workers(few_digits):
    """One is one real worker; many give the same bits twice."""
    ends = []
    for runner, workers in ((None, 1), ("virtual", 1), ("virtual", 9), ("virtual", 9)):
        net = chaos.models.small()
        train(net, few_digits[0][:90], ASKED, workers=workers, runner=virtual.Virtual() if runner else None)
        ends.append(net.weights.copy())
    assert (ends[0] == ends[1]).all() and (ends[2] == ends[3]).all() and (ends[1] != ends[2]).any()


def test_evaluations_see_images_as_they_are(few_digits):
    """Also where the engine that trains evaluates (batches of at least 8)."""
    data, test = few_digits
    for batch_size in (1, 16):
        net = chaos.models.small()
        run = train(net, data, "cutout:29x29", epochs=1, evaluate_train=True, workers=1, batch_size=batch_size)
        assert run.history[0]["train_eval_loss"] == pytest.approx(chaos.evaluate(net, data, workers=1)["loss"], abs=1e-6)
        run = chaos.train(
            net, data, test, epochs=1, lr=1e-9, augment="cutout:29x29", workers=1, batch_size=batch_size, progress=False
        )
        assert run.history[0]["test_loss"] == pytest.approx(chaos.evaluate(net, test, workers=1)["loss"], abs=1e-6)
        assert abs(run.history[0]["train_loss"] - run.history[0]["test_loss"]) > 1e-3


# ---- what is random ----


def draws(n, kind="shift", seed=0):
    """The random numbers of the first step of n images."""
    run = random.key(random.key(0, seed), 1)
    return [Draws(random.key(run, i), 0) for i in range(n)]


def chi_square(counts, expected):
    """The statistic, over its 99.9 % point (Wilson, Hilferty 1931)."""
    counts = np.asarray(counts, float)
    free = len(counts) - 1
    point = free * (1 - 2 / (9 * free) + 3.0902 * math.sqrt(2 / (9 * free))) ** 3
    return ((counts - expected) ** 2 / expected).sum() / point


def test_draws_are_uniform():
    n = 4900
    marks = np.zeros((n, 1, 7, 7), np.float32)
    marks[:, 0, 3, 3] = 1
    where = seen(marks, "shift:3").reshape(n, 49).argmax(1)
    assert (seen(marks, "shift:3").reshape(n, -1).sum(1) == 1).all()  # never beyond
    assert chi_square(np.bincount(where, minlength=49), n / 49) < 1
    flipped = (seen(np.tile(np.float32([[[[1, 0]]]]), (n, 1, 1, 1)), "flip")[:, 0, 0, 0] == 0).sum()
    assert chi_square([flipped, n - flipped], n / 2) < 1
    often = (seen(np.tile(np.float32([[[[1, 0]]]]), (n, 1, 1, 1)), "flip:0.9")[:, 0, 0, 0] == 0).sum()
    assert chi_square([often, n - often], np.array([0.9, 0.1]) * n) < 1
    partners = [one.below(1, 20) for one in draws(n)]
    assert chi_square(np.bincount(partners, minlength=20), n / 20) < 1
    degrees = np.array([one.between(1, (-30, 30)) for one in draws(n)])
    assert -30 <= degrees.min() and degrees.max() < 30
    assert chi_square(np.histogram(degrees, 15, (-30, 30))[0], n / 15) < 1
    u, v = draws(1)[0].pairs(1, n)
    assert chi_square(np.histogram2d(u, v, 6, [(0, 1), (0, 1)])[0].ravel(), n / 36) < 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha):
    """Mean 1/2, variance 1 / (4 (2 alpha + 1)), and the cubes of x - 1/2 cancel; each within 4 standard errors."""
    x = np.array([beta(alpha, one) for one in draws(3000)]) - 0.5
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(x).max() <= 0.5
    for values, mean in ((x, 0), (x**2, variance), (x**3, 0)):
        assert abs(values.mean() - mean) < 4 * values.std() / math.sqrt(len(x))


def test_elastic_displacements_are_as_large_as_is_said():
    """In the middle, where no border is near: alpha / (6.14 sigma), in both directions; 4 standard errors of a variance of
    fields that are alike within some 4 sigma."""
    step = augment.Elastic(34, 2)
    fields = np.stack([step.field(one, (1, 64, 64))[:, 20:44, 20:44] for one in draws(60)])
    many = fields.size / (4 * math.pi * 2 * step.sigma**2)
    for direction in (0, 1):
        size = fields[:, direction].std()
        assert abs(size / (step.alpha / (6.14 * step.sigma)) - 1) < 4 / math.sqrt(2 * many)
    assert abs(np.corrcoef(fields[:, 0].ravel(), fields[:, 1].ravel())[0, 1]) < 4 / math.sqrt(many)


# ---- targets ----


@pytest.mark.parametrize(
    "loss, asked", [("cross_entropy", "mixup:1"), ("cross_entropy", "cutmix:1,p=0.7"), ("mse", "mixup:2")]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_targets_are_mixed_as_images_are(isa, loss, asked, weighted):
    """The loss and the gradient are those of mixed images with mixed targets and weights."""
    rng = np.random.default_rng(2)
    images, labels = pictures((1, 6, 5), True, n=12), rng.integers(0, 4, 12)
    weights = rng.uniform(0.5, 2, 12).astype(np.float32) if weighted else None
    net = chaos.Network((1, 6, 5), [chaos.Flatten(), chaos.Linear(4)], seed=1)
    mixtures = []
    mixed = define(images, asked, mixtures=mixtures)
    onehot = np.eye(4)[labels]
    shares = [(m.partner, m.share) if m else (i, 1.0) for i, m in enumerate(mixtures)]
    targets = np.stack([s * onehot[i] + (1 - s) * onehot[j] for i, (j, s) in enumerate(shares)])
    each = np.ones(12) if weights is None else weights.astype(float)
    each = np.array([s * each[i] + (1 - s) * each[j] for i, (j, s) in enumerate(shares)])
    want, gradients = reference.loss_and_gradients(net, mixed, targets, loss=loss, weights=each)
    core = [step.core() for step in steps(asked)]
    engine = _core.Engine(net.plan, net.weights, loss=loss, batch_size=12, augment=core)
    arguments = dict(labels=labels, weights=weights, key=run_key(0, 1))
    result = engine.run("gradients", net.take_images(images)["inputs"], **arguments)
    assert result["loss"] / 12 == pytest.approx(want, rel=1e-5)
    found = np.zeros(len(net.weights), np.float32)
    engine.gradient(found)
    for name, gradient in net.unpack(found).items():
        np.testing.assert_allclose(gradient, gradients[name], atol=2e-5)
    assert len({m.partner for m in mixtures if m}) > 3


def test_ignored_answers_stay_ignored(few_digits):
    data = few_digits[0][:20]
    ignored = chaos.data.Dataset(data.images, targets=np.full(20, -100))
    net = chaos.models.small()
    before = net.weights.copy()
    run = train(net, ignored, "mixup:1", epochs=1, workers=1)
    assert run.history[0]["train_loss"] == 0 and (net.weights == before).all()


def test_where_mixed_targets_make_no_sense(few_digits):
    for loss in ("nll", "multi_margin"):
        with pytest.raises(ValueError, match=f"Mixup.* makes probabilities of classes.*loss '{loss}' does not take them"):
            train(chaos.models.small(), few_digits[0], augment.Mixup(), loss=loss)
    logs = chaos.data.Dataset(few_digits[0].images, targets=np.full((300, 10), np.log(0.1)))
    with pytest.raises(ValueError, match="logarithms with log_target of loss 'kl_div'"):
        train(chaos.models.small(), logs, "mixup", loss="kl_div", loss_options={"log_target": True})
    net = chaos.Network((1, 29, 29), [chaos.Conv2d(3, 1)])
    maps = chaos.data.Dataset(few_digits[0].images, targets=np.zeros((300, 29, 29), int))
    with pytest.raises(ValueError, match="a class for each pixel"):
        train(net, maps, "mixup")
    for kind in ("shift", "elastic"):
        with pytest.raises(ValueError, match=f"{kind.title()}.* moves pixels, but not the targets"):
            train(net, maps, kind)
    train(net, maps[:20], "gaussian_noise:3", epochs=1)
    # classes of which the loss cannot tell right from wrong any more
    assert train(chaos.models.small(), few_digits[0][:20], "mixup", loss="mse", epochs=1).history[0]["train_error"] is None


def test_networks_of_several_inputs_are_refused():
    a, b = chaos.Input((1, 4, 4)), chaos.Input((1, 4, 4))
    net = chaos.Network([a, b], chaos.Linear(2)(chaos.Flatten()(chaos.Add()(a, b))))
    images = pictures((1, 4, 4), True)
    with pytest.raises(ValueError, match="networks of one input, not of 2"):
        train(net, chaos.data.Dataset((images, images), np.zeros(6, int), classes=2), "flip")


# ---- how it is said ----


def test_objects_dicts_and_texts_say_the_same():
    for text, step in {
        "shift": augment.Shift(2),
        "Shift:3": augment.Shift((3, 3)),
        "shift:1.5,yes": augment.Shift(1.5, subpixel=True),
        "crop:4,padding-mode=reflect": augment.Crop(4, padding_mode="reflect"),
        "rotation:-5..10": augment.Rotation((-5, 10)),
        "elastic:30,5,p=0.5": augment.Elastic(30, 5, p=0.5),
        "cutout:4x8,2,fill=127": augment.Cutout((4, 8), 2, 127),
        "vertical-flip:0.25": augment.VerticalFlip(0.25),
        "scale:0.9..1.2": augment.Scale((0.9, 1.2)),
        "color_jitter:0.4,0.4,0.4": augment.ColorJitter(0.4, (0.6, 1.4), saturation=0.4),
    }.items():
        assert steps(text) == [step] == steps([step.config()]) == steps(step)
    assert augment.resolve(None) is None and augment.resolve([]) is None
    for kind, cls in augment.KINDS.items():
        assert steps(kind) == [cls()] and steps(cls().config()) == [cls()] and str(cls()).startswith(cls.__name__)
        assert any(line.startswith(f"  {kind}:") for line in augment.describe())
    assert set(_core.augmentations()) == set(augment.KINDS) - {"crop"}  # which is computed by shift


@pytest.mark.parametrize(
    "asked, text",
    [
        ("turn", "unknown augmentation 'turn'; known: shift, "),
        ("rotation:spin=3", "'rotation' has no option 'spin'; its options: degrees, "),
        ("elastic:1,2,3", "'elastic' takes 2 options by their place .alpha, sigma., not 3"),
        ("elastic:sigma=0", "Elastic: sigma must be a number of more than 0 and at most 32"),
        ("elastic:sigma=4,3", "3 has no name"),
        ("elastic:3,alpha=4", "option alpha is given twice"),
        ("shift:1.5", "Shift: pixels must be a whole number of at least 0"),
        ("shift:padding_mode=wrap", "padding_mode must be one of constant, edge, reflect, not 'wrap'"),
        ("rotation:9..3", "low <= high"),
        ("scale:0..2", "Scale: factor must be a number of at least 0.01"),
        ("flip:p=2", "Flip: p must be a number of at least 0 and at most 1, not 2"),
        ("flip:p=nan", "Flip: p must be a number"),
        (["mixup", "cutmix"], "several steps that mix images"),
        (["flip"] * 17, "17 steps; at most 16"),
        (3, "must be a list of steps such as"),
        ([3], "a step of augment is"),
        ({"pixels": 3}, "a step of augment is"),
        ("mixup:0", "Mixup: alpha must be a number"),
        ("cutout:boxes=0", "Cutout: boxes must be a whole number of at least 1"),
        ("shift:subpixel=maybe", "Shift: subpixel must be True or False, not 'maybe'"),
    ],
)
def test_what_makes_no_sense_is_refused(asked, text):
    with pytest.raises(ValueError, match=text):
        steps(asked)


def test_what_does_not_fit_the_images_is_refused(few_digits):
    with pytest.raises(ValueError, match="saturation of images of 3 channels, not of 1"):
        train(chaos.models.small(), few_digits[0], "color_jitter:saturation=0.3")
    with pytest.raises(ValueError, match="saturation"):
        preview(few_digits[0], "color_jitter:saturation=0.3")
    for wrong in ({"n": 0}, {"seed": -1}, {"epoch": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number"):
            preview(few_digits[0], "flip", **wrong)
    with pytest.raises(TypeError, match="must be a chaos.data.Dataset, not ndarray"):
        preview(few_digits[0].images, "flip")


@pytest.mark.parametrize(
    "core, text",
    [
        ([("turn", (), 0, 0)], "does not know"),
        ([("flip", (1,) * 9, 0, 0)], "does not know"),
        ([("flip", (1,), 0, 3)], "does not know"),
        ([("flip", (1,), 0, 0)] * 17, "at most 16"),
        ([("mixup", (1, 1), 0, 0)] * 2, "at most one can"),
    ],
)
def test_the_door_refuses_what_the_core_cannot_do(core, text):
    net = blank((1, 3, 3))
    with pytest.raises(ValueError, match=text):
        _core.Engine(net.plan, net.weights, augment=core)
    with pytest.raises(ValueError, match="no mixed targets"):
        _core.Engine(net.plan, net.weights, loss="nll", augment=[("mixup", (1, 1), 0, 0)])


def test_hard_places(isa):
    """Displacements and factors beyond all bounds read nothing that is not there; one image is its own partner."""
    images = pictures((2, 5, 6), False, n=1)
    for asked in (
        "elastic:1e6,0.5",
        "scale:0.01..0.01,padding_mode=reflect",
        "shift:1000x1000",
        "shift:1000,padding_mode=reflect",
    ):
        got = seen(images, asked)
        assert np.isfinite(got).all() and got.min() >= 0 and got.max() <= 255
    np.testing.assert_allclose(seen(images, "mixup:1"), images, rtol=1e-6)
