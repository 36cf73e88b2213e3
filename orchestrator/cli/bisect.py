"""The command that finds which of several changes mend the end of a model."""

from __future__ import annotations

import shlex
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from aclcmp.orchestrator.cli.options import typer_option
from aclcmp.orchestrator.core.job import Device
from aclcmp.orchestrator.errors import ExitCode, UsageError


class SwitchedEngine(str, Enum):
    """Engines that tell their switches."""

    VLLM = "vllm"


def bisect(
    golden: Annotated[Path, typer.Argument(metavar="RUN", help="Run with both sides, whose end is wrong.")],
    command: Annotated[
        str | None, typer.Option("--exec", help="The command of that run. Default: as run.json has it.")
    ] = None,
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
    engine: Annotated[
        SwitchedEngine | None,
        typer.Option(
            help="Bisect the engine's own switches instead: custom operators, kernels, attention, compilation, prefix "
            "cache, chunks, batches. RUN is one of `aclcmp check`.",
        ),
    ] = None,
    ranks: Annotated[int | None, typer.Option(min=1, help="Ranks of a trial. Default: as in RUN.")] = None,
    device: Annotated[Device | None, typer.Option(help="Device of the ranks. Default: as in RUN.")] = None,
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
        command_of,
        seconds_of,
    )
    from aclcmp.orchestrator.engines.switches import engine_switches
    from aclcmp.orchestrator.run.record_file import open_run

    _, record = open_run(golden)
    if command is None:
        command = command_of(record, golden)
    options = ["--ranks", str(ranks or len(record.ranks) or 1), "--device", device.value if device else record.device]
    options += [word for pair in env or () for word in ("--env", pair)]
    options += [] if timeout is None else ["--timeout", str(timeout)]
    terms = [] if policy is None else ["--policy", str(policy.absolute())]
    if sum(given is not None for given in (labels, switch or None, engine)) > 1:
        raise UsageError("--labels injects golden's values, --switch and --engine change options; give one of them")
    check_end_is_wrong(golden)
    if engine:
        switch = list(engine_switches(engine.value, shlex.split(command)))
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
