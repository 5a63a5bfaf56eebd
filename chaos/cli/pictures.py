"""What a trained network does, in pictures: what it takes for what, where it is most wrong, its filters and feature maps.
For `chaos plot`."""

import numpy as np

from .. import reference
from ..options import unknown
from ..report import Images, Matrix, Paragraph, Report
from .common import percent

MOST_FILTERS, MOST_MAPS, WORST = 96, 64, 32


def confusion(name, net, data, _):
    """What the test images of each class are taken for."""
    found, labels = net.predict(data.images), _labels(data)
    classes = max(data.classes, int(found.max()) + 1)
    counts = np.bincount(labels * classes + found, minlength=classes * classes).reshape(classes, classes)
    names = _names(data, classes)
    wrong = int((found != labels).sum())
    told = f"{wrong:,} of {len(labels):,} images are taken for another class, {percent(wrong / len(labels))}."
    matrix = Matrix("Confusion matrix", "taken for", "class", names, names, counts.tolist(), "share of the class, %")
    return Report(f"{name}: confusion", data={"counts": counts.tolist()}).add(Paragraph(told), matrix)


def worst(name, net, data, _):
    """The images of which the network is most surely wrong."""
    shares, labels = net.predict_proba(data.images), _labels(data)
    wrong = np.flatnonzero(shares.argmax(1) != labels)
    first = wrong[np.argsort(-shares[wrong].max(1), kind="stable")][:WORST]
    if not len(first):
        raise ValueError(f"{name}: no image is taken for another class, so there are no worst ones")
    found = [int(shares[i].argmax()) for i in first]
    names = _names(data, shares.shape[1])
    captions = [f"{names[labels[i]]} as {names[k]}, {100 * shares[i, k]:.0f} %" for i, k in zip(first, found, strict=True)]
    title = f"The {len(first)} most surely wrong of {len(wrong):,} wrong images: class as what it is taken for"
    images = [shown(data.images[i]) for i in first]
    return Report(f"{name}: worst images", data={"images": first.tolist()}).add(Images(title, images, captions, across=8))


def filters(name, net, *_):
    """The weights of the first convolution."""
    state = net.state_dict()
    layers = [(node, called, state.get(f"{net.part_owner(node)}.weight")) for node, called in net.nodes() if node.layer]
    found = [one for one in layers if one[2] is not None and one[2].ndim == 4]
    if not found:
        raise ValueError(f"{name}: there is no layer of two-dimensional filters in it")
    node, called, weight = found[0]
    kind, across = type(node.layer).__name__, 0
    if weight.shape[1] == 3:
        most = np.abs(weight).max() or 1.0
        images = [np.uint8(np.rint(127.5 + 127.5 * one.transpose(1, 2, 0) / most)) for one in weight[:MOST_FILTERS]]
    else:
        images = list(weight.reshape(-1, *weight.shape[2:])[:MOST_FILTERS])
        across = min(weight.shape[1], 12) if weight.shape[1] > 1 else 0
    size = "x".join(map(str, weight.shape))
    title = f"Filters of {called} {kind}, {size}" + (f", the first {len(images)}" if len(images) == MOST_FILTERS else "")
    return Report(f"{name}: filters", data={"layer": called}).add(Images(title, images, [], signed=True, across=across))


def features(name, net, data, arguments):
    """What each layer makes of one image."""
    number = arguments.image
    if not 0 <= number < len(data):
        raise ValueError(f"--image {number}: there are {len(data)} images, 0 to {len(data) - 1}")
    image = data.images[number]
    values = reference.forward(net, image[None], np.float32)
    maps = {called: (node, values[node][0]) for node, called in net.nodes() if node.layer and values[node].ndim == 4}
    if arguments.layer is not None:
        if arguments.layer not in maps:
            raise ValueError(unknown("--layer: there are no maps of", arguments.layer, maps))
        maps = {arguments.layer: maps[arguments.layer]}
    if not maps:
        raise ValueError(f"{name}: no layer of it has maps of two dimensions")
    told = f", class {data.labels[number]}" if data.labels.ndim == 1 else ""
    report = Report(f"{name}: feature maps of image {number}{told}", data={"image": number})
    report.add(Images(f"Image {number}{told}", [shown(image)], across=8))
    for called, (node, found) in maps.items():
        count = min(len(found), MOST_MAPS)
        some = f", the first {count}" if count < len(found) else ""
        title = f"{called} {type(node.layer).__name__}: {len(found)} maps of {found.shape[1]}x{found.shape[2]}{some}"
        report.add(Images(title, list(found[:count]), signed=bool((found < 0).any()), across=12 if count > 8 else 8))
    return report


KINDS = {"confusion": confusion, "worst": worst, "filters": filters, "features": features}
NEED_DATA = ("confusion", "worst", "features")


def shown(image):
    """An image (c, h, w) as a picture: (h, w) of grey or (h, w, 3) of uint8."""
    if image.dtype != np.uint8:
        least, most = float(image.min()), float(image.max())
        image = np.uint8(np.rint(255 * (image - least) / ((most - least) or 1.0)))
    return image.transpose(1, 2, 0) if len(image) == 3 else image[0]


def _names(data, classes):
    """Of so many classes: those that the data know, else their numbers."""
    known = list(map(str, data.class_names or ()))
    return [*known, *map(str, range(len(known), classes))]


def _labels(data):
    if not data.classes or data.labels.ndim != 1:
        raise ValueError(f"{data.name}: there is not one class per image")
    return data.labels
