"""`chaos completion`: what makes a shell complete commands, options and names. Made from the parsers, so that it knows what
they know."""

import argparse
import dataclasses
import re

from .. import data
from ..models import MODELS
from .common import add_command

SHELLS = ("bash", "zsh", "fish")
HOW = {
    "bash": "chaos completion bash > ~/.local/share/bash-completion/completions/chaos",
    "zsh": "chaos completion zsh > ~/.zfunc/_chaos (a directory of fpath, before compinit)",
    "fish": "chaos completion fish > ~/.config/fish/completions/chaos.fish",
}


def add(commands):
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "completion",
        run,
        usage=f"{'|'.join(SHELLS)}",
        description="Prints a script that makes a shell complete commands, options and the names that options take. Once "
        "for this shell: source <(chaos completion bash). For all: " + "; ".join(HOW.values()) + ".",
        examples=["chaos completion bash", "chaos completion fish"],
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(arguments):
    """Runs the command."""
    from . import COMMANDS, _parser

    parser = _parser()
    found = [_described("", parser), *_walk("", parser, COMMANDS)]
    print({"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](found), end="")


@dataclasses.dataclass
class Option:
    """What is completed of an option: its names, its help, and its values: names of which one is wanted, files."""

    flags: list[str]
    text: str
    valued: bool
    names: list[str]
    files: bool


@dataclasses.dataclass
class Command:
    """A command by its words, as "bench kernels": its commands {name: help}, its options, its first argument's names."""

    words: str
    commands: dict[str, str]
    options: list[Option]
    names: list[str]


def _walk(words, parser, texts):
    """All commands below a parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                whole = f"{words} {name}".strip()
                yield _described(whole, inner)
                yield from _walk(whole, inner, texts)


def _described(words, parser):
    from . import COMMANDS

    commands, options, names = {}, [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {one.dest: one.help for one in action._choices_actions}
            commands = {name: helps.get(name) or COMMANDS.get(name, "") for name in action.choices}
        elif action.option_strings:
            values, files = _values(action)
            text = re.sub(r"\s+", " ", re.split(r";| \(default", action.help or "")[0])
            text = text.split(": ")[0] if action.choices else text  # the names are shown themselves
            options.append(
                Option(
                    action.option_strings, text % vars(action) if "%(" in text else text, action.nargs != 0, values, files
                )
            )
        elif "MODEL" in (action.metavar or ""):
            names += MODELS
        elif action.choices:
            names += action.choices
    return Command(words, commands, options, names)


def _values(action):
    """(names, whether files) of an option's value; lower-case words of a metavar such as auto|FILE are names."""
    parts = str(action.metavar or "").split("|")
    names = list(action.choices or [part for part in parts if re.fullmatch("[a-z][a-z-]+", part)])
    if action.dest == "data":
        names += data.NAMES
    files = any("FILE" in part or "DIR" in part or "FOLDER" in part for part in parts)
    return names, files


def bash(found):
    """The script for bash."""
    steps = " | ".join(f'"{one.words.rpartition(" ")[0]}:{one.words.rpartition(" ")[2]}"' for one in found if one.words)
    values, words = [], []
    for one in found:
        for option in one.options:
            if option.names or option.files:
                keys = " | ".join(f'"{one.words}:{flag}"' for flag in option.flags)
                values.append(f'        {keys}) names="{" ".join(option.names)}"; files={int(option.files)} ;;')
            elif option.valued:
                keys = " | ".join(f'"{one.words}:{flag}"' for flag in option.flags)
                values.append(f"        {keys}) return ;;")
        every = " ".join([*one.commands, *one.names, *(flag for option in one.options for flag in option.flags)])
        words.append(f'            "{one.words}") names="{every}" ;;')
    return f"""# bash completion of chaos
_chaos() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} command="" names="" files=1 word
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$command:$word" in
            {steps}) command="${{command:+$command }}$word" ;;
        esac
    done
    case "$command:$prev" in
{chr(10).join(values)}
        *) case "$command" in
{chr(10).join(words)}
        esac
        [[ -z $command || $cur == -* ]] && files=0 ;;
    esac
    COMPREPLY=($(compgen -W "$names" -- "$cur"))
    if ((files)); then COMPREPLY+=($(compgen -f -- "$cur")); fi
}}
complete -o filenames -F _chaos chaos
"""


def zsh(found):
    """The function for zsh."""

    def quoted(text):
        return re.sub(r"([\[\]:\\])", r"\\\1", text).replace("'", "'\\''")

    cases = []
    for one in found:
        lines = []
        for option in one.options:
            value = ""
            if option.valued:
                what = f"({' '.join(option.names)})" if option.names else ""
                what = f" _alternative 'names\\:name\\:{what}' 'files\\:file\\:_files'" if option.files and what else what
                what = what.replace("'", "'\\''") if option.files else what
                value = f":value:{what or ('_files' if option.files else ' ')}"
            lines += [f"'*{flag}[{quoted(option.text)}]{value}'" for flag in option.flags]
        if one.commands:
            told = " ".join(f'{name}\\:"{quoted(text)}"' for name, text in one.commands.items())
            lines.append(f"'1:command:(({told}))'")
        elif one.names:
            lines.append(f'\'1:name: _alternative "names:name:({" ".join(one.names)})" "files:file:_files"\'')
        lines.append("'*:file:_files'")
        cases.append(f'        "{one.words}") _arguments -S {" ".join(lines)} ;;')
    steps = " | ".join(f'"{one.words.rpartition(" ")[0]}:{one.words.rpartition(" ")[2]}"' for one in found if one.words)
    return f"""#compdef chaos
_chaos() {{
    local command="" word
    local -i at=1 last=1
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        (( at++ ))
        case "$command:$word" in
            ({steps}) command="${{command:+$command }}$word"; last=$at ;;
        esac
    done
    words=("${{(@)words[last,-1]}}")
    (( CURRENT -= last - 1 ))
    case "$command" in
{chr(10).join(cases)}
    esac
}}
if [[ $funcstack[1] == _chaos ]]; then _chaos "$@"; else compdef _chaos chaos; fi
"""


def fish(found):
    """The script for fish."""

    def quoted(text):
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = ["# fish completion of chaos"]
    for one in found:
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in one.words.split())
        if one.commands:
            none = f"not __fish_seen_subcommand_from {' '.join(one.commands)}"
            here = f"{seen}; and {none}" if seen else none
            lines += [
                f"complete -c chaos -f -n {quoted(here)} -a {name} -d {quoted(text)}" for name, text in one.commands.items()
            ]
        where = f" -n {quoted(seen or '__fish_use_subcommand')}"
        if one.names:
            lines.append(f"complete -c chaos{where} -a {quoted(' '.join(one.names))}")
        for option in one.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            value = ""
            if option.valued:
                value = " -r" if option.files else " -x"
                value += f" -a {quoted(' '.join(option.names))}" if option.names else ""
            lines.append(f"complete -c chaos{where} {flags}{value} -d {quoted(option.text)}")
    return "\n".join(lines) + "\n"
