"""Which parameters training leaves as they are: patterns of names, and what follows for layers. For chaos.network."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from .layers import Node
from .layers.base import State


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a shell pattern (*, ?, [...]) fits; ValueError, which shows what there is, where it fits none."""
    names = list(names)
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern of parameter names must be text such as 'features.*', not {pattern!r}")
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"no parameter is named like {pattern!r}; the network has {shown or 'none'}")
    return found


def check(nodes: Iterable[tuple[Node, str]], frozen: Collection[str]) -> None:
    """ValueError where some but not all running statistics of a layer are frozen: it uses all of them or none."""
    for node, name in nodes:
        state = _state(node)
        left = [part for part in state if f"{name}.{part}" not in frozen]
        if left and len(left) < len(state):
            raise ValueError(
                f"{node.layer}: {' and '.join(state)} can be frozen together only; {', '.join(left)} would not be"
            )


def evaluates(node: Node, name: str, frozen: Collection[str]) -> bool:
    """Whether a layer, whose parts are kept under `name`, uses its running statistics in training as well."""
    state = _state(node)
    return bool(state) and all(f"{name}.{part}" in frozen for part in state)


def trains(node: Node, name: str, frozen: Collection[str]) -> bool:
    """Whether training changes anything of a layer."""
    parts = node.layer.parts(*(source.shape for source in node.inputs)) if node.layer else {}
    return any(f"{name}.{part}" not in frozen for part in parts)


def _state(node: Node) -> list[str]:
    parts = node.layer.parts(*(source.shape for source in node.inputs)) if node.layer else {}
    return [part for part, what in parts.items() if isinstance(what, State)]
