"""What names of other libraries are called here, and answers to names that nothing has. Anybody may use it; imports nothing.

A hint is a name of here ("lr"), or words that stand for themselves (with a space in them)."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_CPU = "chaos computes on the CPU alone"
_RULE = 'it is an option of an update rule: update="momentum", update_options={"momentum": 0.9}'
_DECAY = 'it is an option of every update rule: update_options={"weight_decay": 1e-4}'

# hint: what others call it
_TRAINING = {
    "lr": "learning_rate learning_rate_init eta eta0 step_size base_lr",
    "lr_schedule": "scheduler lr_scheduler learning_rate_schedule",
    "update": "optimizer optimiser optim solver opt",
    "epochs": "n_epochs num_epochs nb_epoch max_epochs max_iter n_iter iterations",
    "batch_size": "batch bs mini_batch minibatch",
    "workers": "n_jobs num_workers n_workers threads n_threads num_threads cores jobs np nproc",
    "progress": "verbose verbosity tqdm progress_bar",
    "seed": "random_state random_seed rng",
    "loss": "criterion loss_fn loss_function objective",
    "patience": "early_stopping n_iter_no_change early_stopping_rounds",
    "validation_data": "validation validation_set val val_data valid eval_set",
    "validation_split": "val_split val_fraction validation_fraction validation_size",
    "evaluate_train": "validate_train",
    "test": "test_data test_set testset",
    "train": "train_data train_set trainset data dataset train_loader loader dataloader",
    "net": "model network",
    "run_dir": "log_dir logdir output_dir out_dir save_dir checkpoint_dir output",
    "augment": "transform transforms augmentation augmentations",
    "precision": "dtype amp mixed_precision fp16 bf16 half",
    "accumulate": "gradient_accumulation accumulation_steps accumulate_grad_batches grad_accum",
    "class_weight": "class_weights",
    "metrics": "scoring",
    _CPU: "device devices gpu gpus cuda accelerator",
    _RULE: "momentum nesterov betas beta1 dampening",
    _DECAY: "weight_decay l2 l1 alpha decay clip_norm clip_value max_grad_norm gradient_clip_val",
    "images and labels together are chaos.data.Dataset(images, labels)": "x y X images labels x_train y_train targets",
}
_LAYER = {
    "out_channels": "filters channels maps n_filters num_filters",
    "out_features": "units features n_units neurons",
    "kernel_size": "kernel size pool_size window filter_size pool",
    "stride": "strides step subsample",
    "padding": "pad border",
    "dilation": "dilation_rate rate",
    "bias": "use_bias",
    "p": "prob probability rate drop drop_rate",
    "a function is a layer of its own behind it, such as chaos.ReLU()": "activation act nonlinearity",
    "the shape of one image is the network's first argument": "input_shape input_dim in_shape batch_input_shape",
    "channels come first; chaos.data.Dataset(x, y, channels='last') brings them there": "data_format",
    "initial values are net.initialise's": "kernel_initializer bias_initializer weight_init init",
    "penalties are options of update rules": "kernel_regularizer bias_regularizer weight_decay",
    "leave it out": "device dtype inplace trainable",
}
_ESTIMATOR = {
    "network": "hidden_layer_sizes activation model module net layers estimator",
    "lr": "learning_rate learning_rate_init eta0",
    "lr_schedule": "learning_rate_schedule scheduler lr_scheduler",
    "update": "solver optimizer optimiser",
    "epochs": "max_iter n_epochs num_epochs max_epochs",
    "random_state": "seed random_seed",
    "n_jobs": "workers num_workers threads n_threads",
    "progress": "verbose",
    "validation_fraction": "validation_split",
    "n_iter_no_change": "patience",
    'it is among the update_options: {"momentum": 0.9}': "momentum",
    'it is among the update_options: {"weight_decay": 1e-4}': "alpha weight_decay",
    _CPU: "device gpu cuda",
}
_ZOO = {
    "classes": "num_classes n_classes outputs num_outputs n_outputs",
    "input_shape": "shape in_shape image_size size in_channels channels",
    "the zoo has shapes, and no trained weights; chaos.load reads those of a file": "pretrained weights progress",
}
_DATASET = {
    "images": "x X data features inputs",
    "labels": "y Y target",
    "classes": "num_classes n_classes",
    "class_names": "names categories label_names",
    "weights": "sample_weight sample_weights weight",
    "channels": "channel data_format layout",
    "steps that change images are an argument of chaos.train: augment=[...]": "transform transforms target_transform",
}
_LOAD = {
    "name": "path file filename dataset",
    "data_dir": "root cache_dir directory folder",
    "size": "image_size target_size resize",
    "label": "target label_column y target_column",
    "both parts come, training and test: train, test = chaos.data.load(name)": "train split test subset",
    "steps that change images are an argument of chaos.train: augment=[...]": "transform transforms",
}
_SPLIT = {"part": "test_size fraction size validation_split ratio share", "seed": "random_state"}


def _by_word(table: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for hint, words in table.items():
        for word in words.split():
            found.setdefault(word, hint)
    return found


TRAINING, LAYER, ESTIMATOR, ZOO = map(_by_word, (_TRAINING, _LAYER, _ESTIMATOR, _ZOO))
DATASET, LOAD, SPLIT = map(_by_word, (_DATASET, _LOAD, _SPLIT))

# What people look for in `chaos`, and where it is.
NAMES = {
    "Dataset": "it is chaos.data.Dataset",
    "Stream": "it is chaos.data.Stream",
    "DataLoader": "chaos.data.Dataset holds arrays, chaos.data.Stream takes what a loader yields",
    "ChaosClassifier": "it is chaos.estimators.ChaosClassifier",
    "ChaosRegressor": "it is chaos.estimators.ChaosRegressor",
    "Classifier": "it is chaos.estimators.ChaosClassifier",
    "Regressor": "it is chaos.estimators.ChaosRegressor",
    "nn": "layers are chaos.Conv2d, chaos.ReLU, ...",
    "optim": 'an update rule is chaos.train(..., update="adam")',
    "functional": "layers are chaos.Conv2d, chaos.ReLU, ...",
    "Sequential": "it is chaos.Network(shape, [layer, ...])",
    "Model": "it is chaos.Network(shape, [layer, ...])",
    "Module": "it is chaos.Network(shape, [layer, ...])",
    "Dense": "it is chaos.Linear",
    "Activation": "it is chaos.ReLU, chaos.Tanh, ...",
    "BatchNormalization": "it is chaos.BatchNorm2d or chaos.BatchNorm1d",
    "GlobalAveragePooling2D": "it is chaos.AdaptiveAvgPool2d(1)",
    "MaxPooling2D": "it is chaos.MaxPool2d",
    "AveragePooling2D": "it is chaos.AvgPool2d",
    "LSTM": "there are no recurrent layers",
    "GRU": "there are no recurrent layers",
    "RNN": "there are no recurrent layers",
    "Embedding": "there are no embeddings",
    "MultiheadAttention": "there is no attention",
    "Transformer": "there is no attention",
    "Conv3d": "there are no windows of three dimensions",
    "CrossEntropyLoss": 'a loss is chaos.train(..., loss="cross_entropy")',
    "MSELoss": 'a loss is chaos.train(..., loss="mse")',
    "SGD": 'an update rule is chaos.train(..., update="sgd")',
    "Adam": 'an update rule is chaos.train(..., update="adam")',
    "fit": "it is chaos.train(net, train)",
    "predict": "it is net.predict(images)",
    "save": "it is net.save(path)",
    "load_data": "it is chaos.data.load(name)",
    "load_model": "it is chaos.load(path)",
    "manual_seed": "seeds are arguments: chaos.Network(..., seed=0), chaos.train(..., seed=0)",
}
# The same of a network.
_TRAIN = "chaos.train(net, train, test) trains it"
_NONE = "there is nothing to switch: chaos.train trains, net.predict and net.forward evaluate"
NETWORK = {
    "fit": _TRAIN,
    "train": _TRAIN,
    "compile": "loss and update rule are arguments of chaos.train",
    "eval": _NONE,
    "evaluate": "it is chaos.evaluate(net, data)",
    "score": "it is chaos.evaluate(net, data)",
    "parameters": "it is net.state_dict(), {name: array}",
    "named_parameters": "it is net.state_dict(), {name: array}",
    "get_weights": "it is net.state_dict(), {name: array}",
    "set_weights": "it is net.load_state_dict({name: array})",
    "layers": "it is net.nodes(), [(node, name), ...]",
    "count_params": "it is net.n_parameters",
    "to": _CPU,
    "cuda": _CPU,
    "cpu": _CPU,
    "partial_fit": "it is net.update(x, y)",
    "train_on_batch": "it is net.update(x, y)",
    "zero_grad": "it is net.loss_and_gradients(x, y)",
    "backward": "it is net.loss_and_gradients(x, y)",
    "load": "it is chaos.load(path)",
    "load_weights": "it is chaos.load(path), or net.load_state_dict({name: array})",
    "plot": "chaos plot FILE draws it",
    "requires_grad_": "it is net.freeze(layer, ...)",
}

# The same of what a training gives back.
RUN = {
    "loss": "it is run.history[-1]['train_loss']",
    "error": "it is run.history[-1]['train_error']",
    "accuracy": "it is 1 - run.history[-1]['test_error'], or metrics=['accuracy']",
    "model": "network",
    "net": "network",
    "weights": "it is run.network.state_dict()",
    "predict": "it is run.network.predict(images)",
    "save": "it is run.network.save(path)",
}

# The same of rooms.
CALLBACKS = {
    "EarlyStopping": "it is chaos.train(..., patience=3, restore_best=True)",
    "ModelCheckpoint": "run_dir keeps the last and the best weights: chaos.train(..., run_dir=...)",
    "ReduceLROnPlateau": 'it is chaos.train(..., lr_schedule="plateau")',
    "LearningRateScheduler": "it is chaos.train(..., lr_schedule=...)",
    "CSVLogger": "it is chaos.callbacks.CSVWriter",
    "TensorBoard": "it is chaos.callbacks.TensorBoardWriter",
    "ProgressBar": "it is chaos.train(..., progress=True)",
}
DATA = {
    "DataLoader": "chaos.data.Dataset holds arrays, chaos.data.Stream takes what a loader yields",
    "load_mnist": 'it is chaos.data.load("mnist")',
    "load_digits": 'it is chaos.data.load("digits")',
    "load_cifar10": 'it is chaos.data.load("cifar10")',
    "MNIST": 'it is chaos.data.load("mnist")',
    "CIFAR10": 'it is chaos.data.load("cifar10")',
    "ImageFolder": "it is chaos.data.load(folder)",
    "train_test_split": "it is chaos.data.Dataset.split",
    "normalise": "it is chaos.normalise(net, mean, std)",
    "normalize": "it is chaos.normalise(net, mean, std)",
}

# Endings of files that are no safetensors: what writes them.
_SAFE = "name it .safetensors"
FILES = {
    ".pt": "torch.save(net.to_torch().state_dict(), path), or chaos export, writes PyTorch's",
    ".pth": "torch.save(net.to_torch().state_dict(), path), or chaos export, writes PyTorch's",
    ".onnx": "net.to_onnx(path) writes ONNX",
    ".npz": "np.savez(path, **net.state_dict()) writes NumPy's",
    ".h5": _SAFE,
    ".hdf5": _SAFE,
    ".keras": _SAFE,
    ".pkl": _SAFE,
    ".pickle": _SAFE,
    ".joblib": _SAFE,
    ".json": _SAFE,
}


# Names of losses, schedules, steps: what others call them, without case and underscores.
_KINDS = {
    "cross_entropy": "ce crossentropyloss categoricalcrossentropy sparsecategoricalcrossentropy softmax logloss",
    "binary_cross_entropy": "bce bceloss bcewithlogitsloss bcewithlogits binarycrossentropy sigmoid",
    "mse": "mseloss meansquarederror squarederror l2",
    "l1": "l1loss mae meanabsoluteerror",
    "nll": "nllloss",
    "kl_div": "kl kldivloss kldivergence",
    "momentum": "sgdmomentum heavyball",
    "cosine": "cosineannealing cosineannealinglr",
    "plateau": "reducelronplateau reduceonplateau",
    "one_cycle": "onecyclelr",
    "step": "steplr",
    "synchronous": "sync allreduce ssgd minibatch",
    "chaos": "async asynchronous",
    "flip": "hflip horizontalflip randomhorizontalflip mirror",
    "vertical_flip": "vflip randomverticalflip",
    "crop": "randomcrop",
    "rotation": "rotate randomrotation",
    "cutout": "randomerasing erase",
    "shift": "translate translation",
    "gaussian_noise": "noise",
    "color_jitter": "colourjitter brightness contrast",
    "bf16": "bfloat16 half fp16 float16",
    "float32": "fp32 float",
}
KINDS = _by_word(_KINDS)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is probably meant to be, None where none is alike; case, "-" and "_" make no difference."""
    import difflib

    plain = {one.lower().replace("-", "_"): one for one in known}
    other = KINDS.get(str(name).lower().replace("-", "").replace("_", ""))
    if other in plain:
        return plain[other]
    found = difflib.get_close_matches(str(name).lower().replace("-", "_"), plain, 1)
    return plain[found[0]] if found else None


def meant(name: str, known: Iterable[str], words: Mapping[str, str]) -> str:
    """What is added to the message about an unknown name: "; ..." with the name of here, or nothing."""
    known = list(known)
    hint = words.get(name.replace("-", "_"))
    if hint is not None and " " in hint:
        return f"; {hint}"
    found = hint if hint in known else nearest(name, known)
    return f"; did you mean {found}?" if found else ""


def no_network(value: object) -> str:
    """The message about what stands where a network is wanted."""
    hint = ""
    if hasattr(value, "named_modules"):
        hint = "; chaos.from_torch(module, shape) makes one"
    elif isinstance(value, (list, tuple)):
        hint = "; chaos.Network(shape, layers) makes one"
    elif isinstance(value, str):
        hint = "; chaos.load(path) reads one, chaos.models has some by name"
    return f"net must be a chaos.Network, not {type(value).__name__}{hint}"


def refuse_unknown(owner: str, given: Iterable[str], known: Iterable[str], words: Mapping[str, str]) -> None:
    """TypeError for the first name of an argument that `owner` does not take."""
    known = list(known)
    for name in given:
        if name not in known:
            told = meant(name, known, words) or f"; it takes {', '.join(known) or 'none'}"
            raise TypeError(f"{owner} has no argument {name!r}{told}")


def explained(words: Mapping[str, str], several: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: arguments that the function does not take are refused with what is meant here by them; `several` is
    added where there are too many by position."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        making = function.__name__ == "__init__"
        kinds = inspect.Parameter
        all_of = inspect.signature(function).parameters.values()
        known = [one.name for one in all_of if one.kind is not kinds.POSITIONAL_ONLY and one.name != "self"]
        placed = [one.name for one in all_of if one.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]

        # what passes options on leaves them to another
        open_ended = any(one.kind is kinds.VAR_KEYWORD for one in all_of)
        most = math.inf if any(one.kind is kinds.VAR_POSITIONAL for one in all_of) else len(placed)
        taken = {*known}

        @functools.wraps(function)
        def call(*positional: P.args, **named: P.kwargs) -> R:
            owner = type(positional[0]).__name__ if making else f"{function.__name__}()"
            if not open_ended and not named.keys() <= taken:
                refuse_unknown(owner, named, known, words)
            if len(positional) > most:
                shown, extra = [one for one in placed if one != "self"], len(positional) - len(placed)
                raise TypeError(
                    f"{owner} takes {' and '.join(shown) or 'nothing'} by position and the rest by name, and was given "
                    f"{extra} more{several}"
                )
            return function(*positional, **named)

        return call

    return wrap


def answers(module: str, known: Iterable[str], words: Mapping[str, str] | None = None) -> Callable[[str], object]:
    """A module's ``__getattr__``: an AttributeError with the name that may be meant."""
    known = list(known)

    def __getattr__(name: str) -> object:
        if name.startswith("_"):  # what tools ask for
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        raise AttributeError(missing(f"module {module!r}", name, known, words or {}), name=name)

    return __getattr__


def missing(owner: str, name: str, known: Iterable[str], words: Mapping[str, str]) -> str:
    """The message about an attribute that `owner` (in words) does not have."""
    return f"{owner} has no attribute {name!r}{meant(name, known, words)}"
