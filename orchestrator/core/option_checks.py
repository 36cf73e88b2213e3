"""The checks on options that need neither files nor a cluster: each value by itself, then the combinations.

`aclcmp run` and `aclcmp submit` ask the same questions, so that a cluster is sent nothing that it would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from aclcmp.orchestrator.core.detect_launcher import ReadScript, own_launcher
from aclcmp.orchestrator.core.floors import REPEATS
from aclcmp.orchestrator.core.job import (
    JobOptions,
    Launcher,
    LaunchOptions,
    RunOptions,
    StopAt,
    refuse_words,
    split_command,
)
from aclcmp.orchestrator.core.option_fields import as_option, options_of
from aclcmp.orchestrator.errors import UsageError

Spelling = Callable[..., str]
"""Spell an option by its name and perhaps its value: `as_option` or `as_key`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why options are refused."""

    text: str
    name: str = ""
    """The option that is wrong by itself; "" for a combination."""
    part: str = ""
    """The wrong part of its value."""

    def as_usage_error(self) -> UsageError:
        """Return the error that the command line shows."""
        where = as_option(self.name, self.part or None) if self.name else ""
        return UsageError(f"{where}: {self.text}" if where else self.text)


def no_script(name: str) -> bytes:
    """Refuse to read a script: the command's files are not on this host."""
    raise FileNotFoundError(name)


def find_refusal(options: JobOptions, spell: Spelling, read_script: ReadScript = no_script) -> Refusal | None:
    """Return the first thing that is wrong with options, None if they are right."""
    wrong = _find_wrong_value(options)
    if wrong is None:
        words = split_command(options.exec)
        texts = [*_clashes_of_launch(options, words, spell, read_script), *_clashes(options, spell)]
        wrong = Refusal(texts[0]) if texts else None
    return wrong


def find_launch_refusal(
    options: LaunchOptions, command: Sequence[str], spell: Spelling, read_script: ReadScript
) -> Refusal | None:
    """Return the first thing that is wrong with a launch of a command, None if it is right."""
    if refused := refuse_words(command):
        return Refusal(refused[1], "exec", refused[0])
    if wrong := _find_wrong_value(options):
        return wrong
    text = next(_clashes_of_launch(options, command, spell, read_script), None)
    return None if text is None else Refusal(text)


def _find_wrong_value(options: LaunchOptions) -> Refusal | None:
    for each in options_of(type(options)):
        if refused := each.option.refuse(getattr(options, each.name)):
            return Refusal(refused[1], each.name, refused[0])
    return None


def _clashes_of_launch(
    options: LaunchOptions, command: Sequence[str], spell: Spelling, read_script: ReadScript
) -> Iterator[str]:
    if options.nodes is not None and options.ranks % options.nodes:
        yield f"{spell('ranks', options.ranks)} cannot be spread evenly over {spell('nodes', options.nodes)}"
    if options.launcher is Launcher.RAY and (launcher := own_launcher(command, read_script)):
        yield f"{launcher} starts its own ranks; add {spell('launcher', Launcher.SCRIPT)}, or give the plain command"


def _clashes(options: JobOptions, spell: Spelling) -> Iterator[str]:
    one, stop = "give one of them", spell("stop_at", options.stop_at)
    if options.clean and options.no_compare:
        yield f"{spell('clean')} removes dumps that match, and {spell('no_compare')} compares none; {one}"
    if isinstance(options, RunOptions):
        yield from _clashes_of_golden_values(options, spell)
    if options.stop_at is not StopAt.NEVER and options.no_compare:
        yield f"{stop} needs a comparison, and {spell('no_compare')} allows none; {one}"
    if options.stop_at is not StopAt.NEVER and options.floor in REPEATS:
        floor = spell("floor", options.floor)
        words = f"{stop} judges while the command runs, {floor} measures in a second run"
        yield f"{words}; give a profile, which `aclcmp report RUN --save-floor FILE` writes"


def _clashes_of_golden_values(options: RunOptions, spell: Spelling) -> Iterator[str]:
    """Yield what speaks against a run on golden's values."""
    local, inject, golden = (spell(name) for name in ("local", "inject", "golden"))
    if options.local is not None and options.inject is not None:
        yield f"{local} replaces the values of all labels, {inject} those of a few; give one of them"
    if (options.inject is None) is not (options.golden is None):
        yield f"{inject} and {golden} belong together: the labels, and the run whose values replace theirs"
    if options.local is None and options.inject is None:
        return
    own = local if options.local is not None else inject
    if options.floor in REPEATS:
        yield f"{spell('floor', options.floor)} runs the command again without {own}; leave one of them out"
    if options.stop_at is not StopAt.NEVER:
        yield f"{spell('stop_at', options.stop_at)} looks for errors that {own} takes away; leave one of them out"
    if options.clean:
        yield f"{spell('clean')} removes dumps, which {own} does not make; leave one of them out"
    if options.address is not None:
        yield f"{own} reads the golden run's files on this host; leave out {spell('address')}"
