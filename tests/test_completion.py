"""`chaos completion`: shells complete what the parsers know."""

import re
import shutil
import subprocess

import pytest

from chaos.cli import COMMANDS, main
from chaos.models import MODELS
from chaos.sync import STRATEGIES

LINES = [
    ("chaos ", set(COMMANDS)),
    ("chaos tr", {"train"}),
    ("chaos bench ke", {"kernels"}),
    ("chaos train --stra", {"--strategy", "--strategy-option"}),
    ("chaos train small --strategy ", set(STRATEGIES)),
    ("chaos train --data mni", {"mnist"}),
    ("chaos train me", {name for name in MODELS if name.startswith("me")}),
    ("chaos bench kernels --is", {"--isa"}),
    ("chaos completion b", {"bash"}),
    ("chaos train small --lr ", set()),
]


def script(shell, folder, capsys):
    """The path of the script for a shell that is here."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not here")
    assert main(["completion", shell]) == 0
    path = folder / f"chaos.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize("line, wanted", LINES)
def test_bash(line, wanted, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = script("bash", tmp_path, capsys)
    code = f'. {path}; COMP_WORDS=({line} "$1"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _chaos; echo "${{COMPREPLY[@]}}"'
    *_, last = line.split(" ")
    code = code.replace(f"({line} ", f"({line[: len(line) - len(last)]} ")
    found = subprocess.run(["bash", "-uc", code, "-", last], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) - {"--help", "--version", "--debug", "-h"} == wanted and not found.stderr


@pytest.mark.parametrize("line, wanted", LINES)
def test_fish(line, wanted, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = script("fish", tmp_path, capsys)
    path.rename(tmp_path / ".chaos")  # which is not completed
    code = f"source {tmp_path}/.chaos; complete -C '{line}'"
    found = subprocess.run(["fish", "--no-config", "-c", code], capture_output=True, text=True, check=True)
    assert {one.split("\t")[0] for one in found.stdout.splitlines()} == wanted and not found.stderr


def test_zsh(tmp_path, capsys):
    """Its syntax, and that its words are whole; what it completes is seen with a terminal only."""
    path = script("zsh", tmp_path, capsys)
    subprocess.run(["zsh", "-n", str(path)], check=True)
    code = f"compdef() {{ }}; _arguments() {{ print -rl -- $@; }}; source {path}; words=(chaos train x); CURRENT=3; _chaos"
    found = subprocess.run(["zsh", "-f", "-c", code], capture_output=True, text=True, check=True).stdout
    names = re.search(r"^\*--strategy\[.*\]:value:\((.*)\)$", found, re.M)
    assert names and set(names[1].split()) == set(STRATEGIES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_option_is_there(shell, capsys):
    from chaos.cli import _parser

    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    train = _parser()._subparsers._group_actions[0].choices["train"]
    for action in train._actions:
        for flag in action.option_strings:
            fish = f"-l {flag[2:]} " if flag.startswith("--") else f"-s {flag[1:]} "
            assert (fish if shell == "fish" else flag) in text
