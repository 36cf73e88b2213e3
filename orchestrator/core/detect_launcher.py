"""The launcher that a command runs by itself, if any. Only plain cases are recognised, because one refuses a launch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

_LAUNCHERS = frozenset({"torchrun", "mpirun", "mpiexec", "srun", "deepspeed", "msrun", "horovodrun"})
_MODULES = frozenset({"torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch", "deepspeed"})
_SHELLS = frozenset({"bash", "sh", "dash", "zsh"})
_PREFIXES = frozenset({"env", "exec", "nohup", "time"})
_OPENING = frozenset({"if", "while", "until", "for", "case", "select", "{"})
_CLOSING = frozenset({"fi", "done", "esac", "}"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_HEREDOC = re.compile(r"(?<!<)<<-?\s*(['\"]?)([A-Za-z_]\w*)\1")
_OPERATORS = frozenset(";&|()")


MAX_SCRIPT = 1 << 20
"""Bytes of a script that are looked at."""

ReadScript = Callable[[str], bytes]
"""Read the first `MAX_SCRIPT` bytes of a file that a command names. Raises OSError."""


def own_launcher(command: Sequence[str], read: ReadScript) -> str | None:
    """Return the launcher that `command` runs ("torchrun", or "torchrun in run.sh"), or None.

    Looks at the command's own words and, where it runs a shell script, at the script's commands outside of any branch,
    loop or function: what a branch runs is the script's own business.
    """
    words = _without_prefixes(command)
    if found := _launcher(words):
        return found
    script = _script(words, read)
    if script is None:
        return None
    name, text = script
    for inner in _plain_commands(text):
        if found := _launcher(_without_prefixes(inner)):
            return f"{found} in {name}"
    return None


def _without_prefixes(words: Sequence[str]) -> Sequence[str]:
    """Drop `env`, `exec`, `nohup`, `time` and variable assignments before the command itself."""
    start = 0
    while start < len(words) and (words[start].rpartition("/")[2] in _PREFIXES or _ASSIGNMENT.match(words[start])):
        start += 1
    return words[start:]


def _launcher(words: Sequence[str]) -> str | None:
    if not words:
        return None
    name = words[0].rpartition("/")[2]
    if name in _LAUNCHERS:
        return name
    if name == "accelerate" and words[1:2] == ["launch"]:
        return "accelerate launch"
    if re.fullmatch(r"python[\d.]*", name):
        for option, value in pairwise([*words[1:], ""]):
            if option == "-m":
                return f"{name} -m {value}" if value in _MODULES else None
            if not option.startswith("-"):
                return None
    return None


def _script(words: Sequence[str], read: ReadScript) -> tuple[str, str] | None:
    """Return name and text of the shell script that `words` run, None where it is none or cannot be read."""
    if not words:
        return None
    if words[0].rpartition("/")[2] in _SHELLS:
        options = [word for word in words[1:] if word.startswith("-")]
        operands = [word for word in words[1:] if not word.startswith("-")]
        if not operands:
            return None
        if any("c" in option for option in options if not option.startswith("--")):
            return "the command", operands[0]
        path = operands[0]
    else:
        path = words[0]
    try:
        content = read(path)
    except OSError:
        return None  # not a script here; whether the command exists is checked elsewhere
    shell = words[0].rpartition("/")[2] in _SHELLS or re.match(rb"#!.*\b(ba|da|z)?sh\b", content)
    return (PurePosixPath(path).name, content.decode(errors="replace")) if shell else None


def _plain_commands(text: str) -> Iterator[list[str]]:
    """Yield the commands of a shell script that run unconditionally, each as its words, up to a plain `exit`."""
    branches = 0  # open if, for, case, {, ...
    parentheses = 0  # open subshells, substitutions, arrays
    for tokens in _token_lines(text):
        words: list[str] = []
        after_or = False
        for token in [*tokens, ";"]:
            if set(token) <= _OPERATORS:
                if words and not (branches or parentheses or after_or):
                    if words[0] == "exit":
                        return
                    yield words
                words = []
                after_or = token == "||"
                parentheses = max(
                    0, parentheses + token.count("(") - token.count(")")
                )  # `a)` of a case has no opening one
            elif not words and token in _OPENING:
                branches += 1
            elif not words and token in _CLOSING:
                branches -= 1
            else:
                words.append(token)


def _token_lines(text: str) -> Iterator[list[str]]:
    """Yield each line's words and operators: lines that go on are joined, comments and here-documents left out."""
    lines = iter(text.replace("\\\n", " ").splitlines())
    pending = ""
    for line in lines:
        lexer = shlex.shlex(pending + line, posix=True, punctuation_chars=True)
        try:
            tokens = list(lexer)
        except ValueError:  # a quote is still open
            pending += line + "\n"
            continue
        pending = ""
        yield [token for token in tokens if token]
        if heredoc := _HEREDOC.search(line):
            for inner in lines:
                if inner.strip() == heredoc.group(2):
                    break
