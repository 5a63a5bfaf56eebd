"""What pages take from the package itself: <!-- list: NAME --> becomes the reference of all kinds of that name, or the
help of all commands. For mkdocs (.mkdocs.yml)."""

import contextlib
import inspect
import io
import os
import re

from chaos import cli, layers, losses, sync, updates
from chaos.cluster import MODES


def _entries(kinds):
    return "\n\n".join(f"::: {kind.__module__}.{kind.__qualname__}" for kind in kinds)


def _named(table):
    """An entry for each of a table, under its name as users write it."""
    parts = []
    for name, kind in sorted(table.items()):
        kind = kind if inspect.isclass(kind) else type(kind)
        options = "\n    options: {show_root_heading: false, show_root_toc_entry: false, heading_level: 3, members: false}"
        parts.append(f"## `{name}`\n\n::: {kind.__module__}.{kind.__qualname__}{options}\n\n{_options(kind)}")
    return "\n\n".join(parts)


def _options(kind):
    """A table of the options of a kind that has some."""
    found = kind.options | kind.common | kind.texts
    rows = [f"| `{name}` | `{one.default}` | {one.text} |" for name, one in found.items()]
    return "\n".join(["| option | default | |", "|---|---|---|", *rows]) if rows else ""


def _layers():
    """Every kind once: a name that stands for another one is not repeated."""
    kinds = {name: getattr(layers, name) for name in layers.__all__}
    classes = {kind for kind in kinds.values() if inspect.isclass(kind)}
    return _entries(sorted(classes, key=lambda kind: kind.__name__.lower()))


def _commands():
    """The help of every command, as on a terminal of 100 columns."""
    os.environ["COLUMNS"] = "100"
    parts = []
    names = list(cli.COMMANDS)
    for name in [*names, "bench throughput", "bench kernels", "bench scaling"]:
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            cli.main([*name.split(), "--help"])
        parts.append(f"## chaos {name}\n\n```text\n{text.getvalue().rstrip()}\n```")
    return "\n\n".join(parts)


LISTS = {
    "layers": _layers,
    "losses": lambda: _named({name: kind for name, kind in losses.LOSSES.items() if name != "score"}),
    "updates": lambda: _named(updates.UPDATES),
    "schedules": lambda: _named(updates.SCHEDULES),
    "strategies": lambda: _named(sync.STRATEGIES),
    "modes": lambda: _named(MODES),
    "commands": _commands,
}


def on_page_markdown(markdown, **_):
    return re.sub(r"^<!-- list: (\w+) -->$", lambda match: LISTS[match[1]](), markdown, flags=re.M)
