"""The command that finds which of several changes mend the end of a model."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from aclcmp.orchestrator.cli.options import typer_option
from aclcmp.orchestrator.core.job import Device
from aclcmp.orchestrator.errors import ExitCode, UsageError


def bisect(
    golden: Annotated[Path, typer.Argument(metavar="RUN", help="Run with both sides, whose end is wrong.")],
    command: Annotated[str, typer.Option("--exec", help="The command of that run.")],
    labels: Annotated[
        str | None,
        typer.Option(metavar="LABEL,...", help="Labels to inject. Default: those that RUN calls wrong by themselves."),
    ] = None,
    switch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTIONS",
            help="Bisect options of the command instead: words to append to it. Repeatable.",
            show_default=False,
        ),
    ] = None,
    ranks: Annotated[int, typer_option("ranks")] = 1,
    device: Annotated[Device, typer_option("device")] = Device.AUTO,
    env: Annotated[list[str] | None, typer_option("env")] = None,
    timeout: Annotated[float | None, typer_option("timeout")] = None,
    policy: Annotated[Path | None, typer_option("policy")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the trials; one that was interrupted goes on. Default: RUN/bisect."),
    ] = None,
) -> int:
    """Find the smallest set of golden labels, or of switches, with which the end of the model is right.

    Each trial is a run in a folder of its own. The exit code is 0 where such a set was found, 1 where all changes
    together do not mend the end.
    """
    from aclcmp.orchestrator.bisect.smallest_set import smallest_set, trials_for_one
    from aclcmp.orchestrator.bisect.trials import Trials
    from aclcmp.orchestrator.cli.bisect_trials import (
        Bisected,
        candidates,
        changes_of_switches,
        check_end_is_wrong,
        seconds_of,
    )

    options = ["--ranks", str(ranks), "--device", device.value]
    options += [word for pair in env or () for word in ("--env", pair)]
    options += [] if timeout is None else ["--timeout", str(timeout)]
    terms = [] if policy is None else ["--policy", str(policy.absolute())]
    if switch and labels is not None:
        raise UsageError("--labels injects golden's values, --switch changes options; give one of them")
    check_end_is_wrong(golden)
    changes = changes_of_switches(switch) if switch else candidates(golden, labels)
    trials = Trials(output or golden / "bisect", [command, *options, *terms, str(golden.absolute()), *changes])
    what = Bisected(golden, command, tuple(options), tuple(terms), by_switches=bool(switch), trials=trials)
    noun = ("switch", "switches") if switch else ("label", "labels")
    least = trials_for_one(len(changes))
    each = seconds_of(golden)
    typer.echo(
        f"{len(changes)} {noun[len(changes) > 1]}: "
        f"up to {least} runs of about {each:.0f} s if one matters, more if several do; {len(trials)} are done"
    )
    start = time.monotonic()
    whole = what.trial(changes)
    if not whole.mends:
        typer.echo(f"All {len(changes)} together do not mend the end (error {whole.error:.2g}): {whole.folder}")
        return int(ExitCode.DIVERGED)
    found = smallest_set(changes, lambda choice: what.trial(choice).mends)
    typer.echo(f"{len(trials)} runs, {time.monotonic() - start:.0f} s")
    typer.echo(what.answer(found))
    sys.stdout.flush()
    return int(ExitCode.MATCH)
