"""What a PyTorch optimiser and schedule are as arguments of `chaos.train`. Imported by chaos.interop."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError


def settings_from_torch(optimizer: Any, scheduler: Any = None) -> dict[str, Any]:
    """Arguments for `chaos.train` that do what a PyTorch optimiser and its learning-rate schedule do.

    ``chaos.train(net, data, **chaos.interop.settings_from_torch(optimizer))``. Settings are taken over; moments
    that the optimiser has gathered are not.

    Parameters
    ----------
    optimizer : torch.optim.SGD, Adam, AdamW, RMSprop or Adagrad
        With one group of parameters.
    scheduler : ExponentialLR, StepLR, MultiStepLR, LinearLR, PolynomialLR, CosineAnnealingLR or \
            CosineAnnealingWarmRestarts of torch.optim.lr_scheduler, optional
        Stepped once an epoch. None: the learning rate stays.

    Returns
    -------
    dict
        update, update_options, lr, lr_schedule, lr_decay, schedule_options.

    Raises
    ------
    UnsupportedError
        For other optimisers and schedules, and options that chaos has not; the message names them all.
    """
    kind = type(optimizer).__name__
    if kind not in _RULES:
        raise UnsupportedError(f"the optimiser {kind}: {', '.join(_RULES)} are known")
    if len(optimizer.param_groups) != 1:
        raise UnsupportedError(f"an optimiser with {len(optimizer.param_groups)} groups of parameters; one is needed")
    group = dict(optimizer.param_groups[0])
    lr = float(group["initial_lr"] if "initial_lr" in group else group["lr"])
    update, names = _RULES[kind](group)
    options = {ours: float(group[theirs]) for theirs, ours in names.items() if theirs in group}
    if "betas" in group:
        options |= {"beta1": float(group["betas"][0]), "beta2": float(group["betas"][1])}
    left = [
        f"{name}={value!r}"
        for name, value in group.items()
        if value and name not in {*names, "params", "betas", "lr", "initial_lr", "foreach", "fused", "capturable", *_TAKEN}
    ]
    if left:
        raise UnsupportedError(f"{kind} with {', '.join(left)}")
    if update == "rmsprop":
        options["centered"] = bool(group.get("centered", False))
    return {"update": update, "update_options": options, "lr": lr, **_schedule(scheduler)}


_TAKEN = ("nesterov", "centered", "decoupled_weight_decay")
_COMMON = {"weight_decay": "weight_decay"}


def _sgd(group: dict[str, Any]) -> tuple[str, dict[str, str]]:
    if not group.get("momentum"):
        group.pop("dampening", None)
        return "sgd", _COMMON
    if group.get("nesterov"):
        return "nesterov", _COMMON | {"momentum": "momentum"}
    return "momentum", _COMMON | {"momentum": "momentum", "dampening": "dampening"}


_RULES: dict[str, Any] = {
    "SGD": _sgd,
    "Adam": lambda group: ("adamw" if group.get("decoupled_weight_decay") else "adam", _COMMON | {"eps": "eps"}),
    "AdamW": lambda group: ("adamw", _COMMON | {"eps": "eps"}),
    "RMSprop": lambda group: ("rmsprop", _COMMON | {"eps": "eps", "alpha": "alpha", "momentum": "momentum"}),
    "Adagrad": lambda group: (
        "adagrad",
        _COMMON | {"eps": "eps", "lr_decay": "lr_decay", "initial_accumulator_value": "initial_accumulator_value"},
    ),
}


_SCHEDULES: dict[str, Any] = {
    "ExponentialLR": lambda s: {"lr_schedule": "exponential", "lr_decay": float(s.gamma)},
    "StepLR": lambda s: {
        "lr_schedule": "step",
        "lr_decay": float(s.gamma),
        "schedule_options": {"step_size": int(s.step_size)},
    },
    "MultiStepLR": lambda s: {
        "lr_schedule": "multistep",
        "lr_decay": float(s.gamma),
        "schedule_options": {"milestones": [int(one) for one in sorted(s.milestones.elements())]},
    },
    "LinearLR": lambda s: {
        "lr_schedule": "linear",
        "schedule_options": {
            "start_factor": float(s.start_factor),
            "end_factor": float(s.end_factor),
            "total_iters": int(s.total_iters),
        },
    },
    "PolynomialLR": lambda s: {
        "lr_schedule": "polynomial",
        "schedule_options": {"total_iters": int(s.total_iters), "power": float(s.power)},
    },
    "CosineAnnealingLR": lambda s: {
        "lr_schedule": "cosine",
        "schedule_options": {"t_max": int(s.T_max), "eta_min": float(s.eta_min)},
    },
    "CosineAnnealingWarmRestarts": lambda s: {
        "lr_schedule": "cosine_restarts",
        "schedule_options": {"t_0": int(s.T_0), "t_mult": int(s.T_mult), "eta_min": float(s.eta_min)},
    },
}


def _schedule(scheduler: Any) -> dict[str, Any]:
    if scheduler is None:
        return {"lr_schedule": "constant"}
    kind = type(scheduler).__name__
    if kind not in _SCHEDULES:
        raise UnsupportedError(f"the schedule {kind}: {', '.join(_SCHEDULES)} are known")
    found: dict[str, Any] = _SCHEDULES[kind](scheduler)
    return found
