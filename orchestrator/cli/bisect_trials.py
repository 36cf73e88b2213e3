"""The trials of `aclcmp bisect`: each runs the command with some changes, in a process and a folder of its own."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from aclcmp.orchestrator.bisect.smallest_set import Choice
from aclcmp.orchestrator.bisect.trials import Result, Trials
from aclcmp.orchestrator.cli.engine_commands import run_command
from aclcmp.orchestrator.core.choices import is_vocabulary
from aclcmp.orchestrator.core.job import parse_injected
from aclcmp.orchestrator.core.redaction import HIDDEN
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.core.text import figure
from aclcmp.orchestrator.core.verdicts import WRONG, Origin
from aclcmp.orchestrator.errors import ExitCode, LaunchError, UsageError
from aclcmp.orchestrator.pipeline.injection import error_of, is_gap, last_label
from aclcmp.orchestrator.pipeline.stored_reports import read_stored_report
from aclcmp.orchestrator.run.golden_run import open_golden_run
from aclcmp.orchestrator.run.record_file import open_run

_DONE = (ExitCode.MATCH, ExitCode.DIVERGED, ExitCode.INCOMPLETE)
"""Exit codes of a run that was compared."""


def check_end_is_wrong(golden: Path) -> None:
    """Raise UsageError for a run whose report says that the model's end is right, or that does not tell."""
    _, report = read_stored_report(golden, with_rows=False)
    end = last_label(report.judgement)
    if end is None or end.status not in WRONG:
        what = "nothing was compared" if end is None else f"its last label, {end.key.label}, is right"
        raise UsageError(f"{golden}: {what}, so there is nothing to mend")


def candidates(golden: Path, labels: str | None) -> Choice:
    """Return the labels to inject: those given, or those that the run's report calls wrong by themselves.

    Raises UsageError where golden has none of them.
    """
    if labels is not None:
        try:
            names = parse_injected(labels)
        except ValueError as error:
            raise UsageError(f"--labels: {error}") from None
    else:
        _, report = read_stored_report(golden, with_rows=False)
        own = [label for label in report.judgement.labels if any(v.origin is Origin.OWN for v in label.ranks)]
        names = tuple(dict.fromkeys(label.key.label for label in own))
        if not names:
            raise UsageError(f"{golden} calls no label wrong by itself; give --labels, or --switch")
    open_golden_run(source_of(golden), names)
    return names


def changes_of_switches(switches: Sequence[str]) -> Choice:
    """Return switches, each once. Raises UsageError for one that is no words."""
    for switch in switches:
        try:
            words = shlex.split(switch)
        except ValueError as error:
            raise UsageError(f"--switch {switch!r}: {error}") from None
        if not words:
            raise UsageError("--switch is empty; give words that are appended to the command")
    return tuple(dict.fromkeys(switches))


def source_of(golden: Path) -> Path:
    """Return the run that golden's values come from: a run that was made from another one's has none."""
    run, record = open_run(golden)
    return Path(record.golden) if record.golden else run.root


def command_of(record: RunRecord, golden: Path) -> str:
    """Return the command of a run. Raises UsageError where run.json hides a part of it, and in another folder."""
    if any(HIDDEN in word for word in record.command):
        raise UsageError(f"{golden}: run.json hides secrets of its command; give it with --exec")
    if Path(record.cwd) != Path.cwd():
        raise UsageError(f"{golden}: its command ran in {record.cwd}; go there, or give --exec")
    return shlex.join(record.command)


def seconds_of(golden: Path) -> float:
    """Return how long a run took."""
    _, record = open_run(golden)
    return record.finished - record.started


@dataclass(frozen=True, slots=True)
class Bisected:
    """What is bisected."""

    golden: Path
    command: str
    options: tuple[str, ...]
    """Options of `aclcmp run`."""
    terms: tuple[str, ...]
    """Options of how it is judged."""
    by_switches: bool
    trials: Trials

    def trial(self, choice: Choice) -> Result:
        """Return what comes of some changes, from a trial before or from a new one. Raises LaunchError if it fails."""
        result = self.trials.known(choice)
        if result is None:
            result = self._run(choice)
            self.trials.keep(choice, result)
        names = ", ".join(choice)
        typer.echo(
            f"{result.folder.name}: {'right' if result.mends else 'wrong'} (error {figure(result.error)}): {names}"
        )
        sys.stdout.flush()
        return result

    def answer(self, found: Choice) -> str:
        """Say what was found."""
        names = ", ".join(found)
        result = self.trials.known(found)
        error = "" if result is None else f" (error {figure(result.error)})"
        alone = "none of them can be left out" if len(found) > 1 else "without it it is not"
        whose = "" if self.by_switches else "golden's "
        return f"With {whose}{names} the end is right{error}; {alone}."

    def _run(self, choice: Choice) -> Result:
        folder = self.trials.new_folder()
        source = source_of(self.golden)
        if self.by_switches:
            words = " ".join([self.command, *choice])
            own = ["--no-compare"]
        else:
            words, own = self.command, ["--golden", str(source), "--inject", ",".join(choice), *self.terms]
        run = folder / "run" if self.by_switches else folder
        code = _aclcmp("run", "--exec", words, *self.options, "--output", str(run), *own)
        report = run
        if self.by_switches and code == ExitCode.MATCH:
            report = folder / "report"
            code = _aclcmp("compare", str(source), str(run), "--output", str(report), *self.terms)
        if code not in _DONE:
            raise LaunchError(f"the trial in {folder} failed (exit code {code}); the same command goes on from there")
        _, found = read_stored_report(report, with_rows=False)
        end = last_label(found.judgement)
        if end is not None and is_gap(end):
            raise LaunchError(f"the trial in {folder} did not compare {end.key.label} on all ranks; see its report")
        if end is None or not is_vocabulary(end.key.label):
            _, before = read_stored_report(self.golden, with_rows=False)
            due = last_label(before.judgement)
            if end is None or (due is not None and due.key.label != end.key.label):
                raise LaunchError(f"the trial in {folder} compared nothing at the model's end; see its report")
        return Result(folder, end.status not in WRONG, error_of(end))


def _aclcmp(*arguments: str) -> int:
    """Run a command of ours, what it prints on stderr; return its exit code."""
    return run_command([sys.executable, "-m", "aclcmp", *arguments], quiet=True)
