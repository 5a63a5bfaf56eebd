"""Generated tasks and sequences: the same every time, consistent, and refused where they cannot be."""

import numpy as np
import pytest

import chaos
from chaos.data import generated
from chaos.data.generated import CLASSES, box_deltas, iou, move_boxes
from chaos.data.time_series import japanese_vowels, read_ts


def test_arguments_decide_alone():
    for make in (generated.shapes, generated.centres):
        one, more, other = make(3, seed=7), make(5, seed=7), make(3, seed=8)
        assert (one.images == more.images[:3]).all() and (one.labels == more.labels[:3]).all()
        assert (one.images != other.images).any()
    one, more = generated.detection(3, seed=7), generated.detection(5, seed=7)
    for a, b in zip(one[:4], more[:4], strict=True):
        assert (a == b[:3]).all()


def test_shapes():
    task = generated.shapes(40)
    assert task.images.shape == (40, 1, 32, 32) and task.images.dtype == np.uint8 and task.labels.shape == (40, 32, 32)
    assert set(np.unique(task.labels)) == set(range(len(CLASSES)))
    objects, ground = task.images[:, 0][task.labels > 0], task.images[:, 0][task.labels == 0]
    assert objects.mean() > ground.mean() + 80
    assert all(labels.any() for labels in task.labels)


def test_centres_are_those_of_objects():
    task = generated.centres(60, wanted=2)
    assert task.labels.shape == (60, 1, 32, 32) and set(np.unique(task.labels)) == {0, 1}
    marked = task.images[task.labels > 0]
    assert len(marked) % 9 == 0 and len(marked) > 60 and marked.mean() > 100
    assert (generated.centres(60, wanted=1).images == task.images).all()


def test_detection_is_consistent():
    task = generated.detection(50)
    n, k = task.labels.shape
    assert (n, k) == (50, 16) and task.images.shape == (50, 1, 48, 48) and task.deltas.shape == (50, 4, 16)
    boxes = task.proposals
    assert (boxes[..., :2] >= 0).all() and (boxes[..., 2:] <= 47).all() and (boxes[..., 2:] > boxes[..., :2]).all()
    for i in range(n):
        overlap = iou(boxes[i], task.objects[i][:, 1:])
        best = overlap.argmax(1)
        wanted = np.where(overlap.max(1) >= 0.5, task.objects[i][best, 0], 0)
        assert (task.labels[i] == wanted).all()
        near = overlap.max(1) >= 0.1
        moved = move_boxes(boxes[i], task.deltas[i].T)
        assert np.allclose(moved[near], task.objects[i][best, 1:][near], atol=1e-3)
        assert not task.deltas[i][:, ~near].any()
    share = (task.labels > 0).mean()
    assert 0.2 < share < 0.6 and set(np.unique(task.labels)) == set(range(len(CLASSES)))
    assert task.dataset().labels.shape == (50, 16) and len(task.dataset().inputs) == 2
    labels, deltas = task.dataset(regression=True).labels
    assert (labels == task.labels).all() and (deltas == task.deltas).all()


def test_boxes():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 20, (2, 6, 2, 2)), 2).reshape(2, 6, 4).astype(np.float32)
    mask = np.zeros((2, 6, 20, 20), bool)
    for one, boxes in zip(mask, corners.astype(int), strict=True):
        for pixels, (x1, y1, x2, y2) in zip(one, boxes, strict=True):
            pixels[y1 : y2 + 1, x1 : x2 + 1] = True
    shared = (mask[0][:, None] & mask[1][None]).sum((2, 3))
    assert np.allclose(iou(*corners), shared / (mask[0][:, None] | mask[1][None]).sum((2, 3)))
    assert np.allclose(move_boxes(corners[0], box_deltas(*corners)), corners[1], atol=1e-4)


def test_occluded():
    _, digits = chaos.data.load("digits", size=28)
    task = generated.occluded(digits.images[:30], seed=3)
    assert task.labels.dtype == np.float32 and (task.labels == digits.images[:30].astype(np.float32) / 255).all()
    changed = (task.images != digits.images[:30])[:, 0]
    assert not changed[:, :4].any() and not changed[:, -4:].any() and not changed[:, :, :4].any() and changed.any()
    for image, where in zip(task.images[:, 0], changed, strict=True):
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        assert np.ptp(rows) < 8 and np.ptp(columns) < 8 and (image[where] == 32).all()
    assert (digits.images == chaos.data.load("digits", size=28)[1].images).all()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: generated.shapes(0), "n must be at least 1"),
        (lambda: generated.shapes(1, size=8), "size at least 12"),
        (lambda: generated.centres(1, wanted=4), "wanted"),
        (lambda: generated.detection(1, proposals=0), "proposals"),
        (lambda: generated.occluded(np.zeros((1, 1, 28, 28))), "uint8"),
        (lambda: generated.occluded(np.zeros((1, 28, 28), np.uint8)), "(1, 28, 28)"),
        (lambda: generated.occluded(np.zeros((1, 1, 12, 28), np.uint8)), "does not fit 12x28"),
        (lambda: generated.occluded(np.zeros((1, 1, 28, 28), np.uint8), grey=2), "0..1"),
    ],
)
def test_impossible_tasks(make, words):
    with pytest.raises(chaos.DataError) as caught:
        make()
    assert words in str(caught.value)


# ---- sequences ----

HEAD = "@problemName x\n@timeStamps false\n@dimensions 2\n@classLabel true a b\n@data\n"


def test_sequences(tmp_path):
    path = tmp_path / "x.ts"
    path.write_text(f"# a comment: with, signs\n{HEAD}1,2,3:4,5,6:a\n\n-1,2e1:0,.5:b\n")
    sequences, labels = read_ts(path)
    assert labels == ["a", "b"] and [one.tolist() for one in sequences] == [[[1, 2, 3], [4, 5, 6]], [[-1, 20], [0, 0.5]]]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "no line @data"),
        (HEAD, "no sequences"),
        (HEAD.replace("@classLabel true a b\n", ""), "no labels"),
        (HEAD.replace("@timeStamps false", "@timeStamps true"), "line 2: sequences with time stamps"),
        (f"{HEAD}1,2:3:a\n", "line 6 holds no sequence"),
        (f"{HEAD}1,?:3,4:a\n", "line 6 holds no sequence"),
        (f"{HEAD}1,nan:3,4:a\n", "line 6 holds NaN"),
        (f"{HEAD}a\n", "line 6 holds no sequence"),
        (f"{HEAD}1:2:a\n1:2:3:b\n", "line 7 has 3 dimensions, those before 2"),
    ],
)
def test_damaged_sequences(text, words, tmp_path):
    path = tmp_path / "x.ts"
    path.write_text(text)
    with pytest.raises(chaos.DataError) as caught:
        read_ts(path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def vowels(folder, test_label="2", frames=3):
    (folder / "JapaneseVowels").mkdir()
    head = HEAD.replace("a b", "1 2")
    for part, label in (("TRAIN", "2"), ("TEST", test_label)):
        lines = f"1,2,3:4,5,9:1\n{','.join(['7'] * frames)}:{','.join(['0'] * frames)}:{label}\n"
        (folder / "JapaneseVowels" / f"JapaneseVowels_{part}.ts").write_text(head + lines)


def test_vowels(tmp_path, monkeypatch):
    vowels(tmp_path)
    train, test = japanese_vowels(tmp_path, length=5)
    assert train.shape == (2, 5) and train.labels.tolist() == [0, 1] and test.classes == 2
    seen = train.images[:, :, :3]
    assert np.allclose(seen.mean((0, 2)), 0, atol=1e-6) and np.allclose(seen.std((0, 2)), 1, atol=1e-6)
    assert not train.images[:, :, 3:].any() and (test.images == train.images).all()
    stretched = japanese_vowels(tmp_path, length=5, stretch=True)[0].images
    assert (stretched[:, :, ::2] == seen).all()  # 3 frames: every other place is one of them, the rest lie half-way
    assert np.allclose(stretched[:, :, 1::2], (seen[:, :, :-1] + seen[:, :, 1:]) / 2, atol=1e-6)
    monkeypatch.setenv("CHAOS_DATA_DIR", str(tmp_path))
    assert (japanese_vowels()[0].images[:, :, :5] == train.images).all()
    with pytest.raises(chaos.DataError, match="does not fit"):
        japanese_vowels(tmp_path, length=2)


def test_vowels_that_are_nowhere_or_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr("chaos.data.time_series.CARRIERS", ("no_such_package_anywhere",))
    with pytest.raises(chaos.DataNotFound, match="pip install --no-deps aeon"):
        japanese_vowels(tmp_path)
    vowels(tmp_path, test_label="3")
    with pytest.raises(chaos.DataError, match="test labels 3"):
        japanese_vowels(tmp_path)
