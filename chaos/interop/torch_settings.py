"""What a PyTorch optimiser and schedule are as arguments of `chaos.train`. Imported by chaos.interop."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError


def settings_from_torch(optimizer: Any, scheduler: Any = None, module: Any = None) -> dict[str, Any]:
    """Arguments for `chaos.train` that do what a PyTorch optimiser and its learning-rate schedule do.

    ``chaos.train(net, data, **chaos.interop.settings_from_torch(optimizer))``. Settings are taken over; moments
    that the optimiser has gathered are not.

    Parameters
    ----------
    optimizer : torch.optim.SGD, Adam, AdamW, RMSprop or Adagrad
        Groups of parameters may differ in their learning rate, and in whether there is weight decay.
    scheduler : ExponentialLR, StepLR, MultiStepLR, LinearLR, PolynomialLR, CosineAnnealingLR or \
            CosineAnnealingWarmRestarts of torch.optim.lr_scheduler, optional
        Stepped once an epoch. None: the learning rate stays.
    module : torch.nn.Module, optional
        Whose parameters these are: where there are several groups, their names are needed. An optimiser that was made of
        ``module.named_parameters()`` has them itself.

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
    group, grouped = _together(optimizer.param_groups, module)
    if "lr_scale" in grouped and getattr(scheduler, "eta_min", None):
        raise UnsupportedError("groups of different learning rates under a schedule with eta_min, which is the same for all")
    lr = _rate(group)
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
    return {"update": update, "update_options": options | grouped, "lr": lr, **_schedule(scheduler)}


def _rate(group: dict[str, Any]) -> float:
    return float(group["initial_lr"] if "initial_lr" in group else group["lr"])


def _together(groups: list[dict[str, Any]], module: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The groups as one, with the first's learning rate and the decay of those that have any; what keeps them apart."""
    first = dict(groups[0])
    if len(groups) == 1:
        return first, {}
    decays = {float(group["weight_decay"]) for group in groups} - {0.0}
    if len(decays) > 1:
        raise UnsupportedError(f"groups with the weight decays {sorted(decays)}: one, or none, for each parameter")
    first["weight_decay"] = max(decays, default=0.0)
    known = {} if module is None else {id(parameter): name for name, parameter in module.named_parameters()}
    scales: list[str] = []
    bare: list[str] = []
    for group in groups:
        other = [k for k in group if k not in _OF_GROUPS and group[k] != first.get(k)]
        if other:
            raise UnsupportedError(f"groups of parameters that differ in {', '.join(other)}")
        names = group.get("param_names") or [known.get(id(parameter)) for parameter in group["params"]]
        if None in names:
            raise UnsupportedError("several groups of parameters: give the module, settings_from_torch(..., module=module)")
        if _rate(group) != _rate(first):
            scales += [f"{name}={_rate(group) / _rate(first)!r}" for name in names]
        if decays and not group["weight_decay"]:
            bare += names
    return first, {name: ",".join(texts) for name, texts in (("lr_scale", scales), ("no_decay", bare)) if texts}


_OF_GROUPS = ("params", "param_names", "lr", "initial_lr", "weight_decay")
_TAKEN = ("nesterov", "centered", "decoupled_weight_decay", "param_names")
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
