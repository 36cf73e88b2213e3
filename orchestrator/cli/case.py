"""The command that writes one module of a run, on its worst tokens, as a folder that shows the difference by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aclcmp.orchestrator.cli.reports import RunAndLabel, chosen_run_and_label
from aclcmp.orchestrator.errors import ExitCode, UsageError

_MIB = 1 << 20


def case(
    words: RunAndLabel,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Golden's checkpoint (.safetensors): the module's weights are taken from there."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New folder of the case. Default: LABEL-case.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many of the worst rows (tokens) it holds.")] = 1,
    rank: Annotated[int | None, typer.Option(help="Of this rank instead of the worst.", show_default=False)] = None,
    task: Annotated[int | None, typer.Option(help="Only in this task.", show_default=False)] = None,
    max_size: Annotated[int, typer.Option(metavar="MIB", min=1, help="Most MiB that it may hold.")] = 64,
) -> int:
    """Write one module on its worst token as a folder: inputs, weights, both outputs, and a script that needs torch.

    Best of a run with --inputs or --local. The script computes the module again from its inputs and weights, and says
    whether that confirms an own error.

    Exit codes: 0 written, 2 wrong usage.
    """
    from rich.console import Console

    from aclcmp.orchestrator.case.folder import folder_name, write_case
    from aclcmp.orchestrator.pipeline.make_case import Wish, make_case
    from aclcmp.orchestrator.pipeline.stored_reports import print_lines, read_stored_report
    from aclcmp.orchestrator.terminal.screen import Screen
    from aclcmp.orchestrator.terminal.startup import terminal

    chosen, label = chosen_run_and_label("case", words)
    folder = output or Path(folder_name(label))
    if folder.exists():
        raise UsageError(f"{folder} exists; choose another folder with --output, or remove it")
    run, report = read_stored_report(chosen)
    _, screen = terminal(as_json=True)
    with screen.waiting("reading the tensors"):
        quiet = Screen(Console(quiet=True, force_terminal=True))  # on what is no terminal it prints lines
        found = make_case(run, report, Wish(label, task, rank, rows, model, max_size * _MIB), quiet)
    write_case(found, folder, max_size * _MIB)
    print_lines(
        [*found.lines(), f"Case: {folder} ({found.nbytes / 1024:,.1f} kB); python {folder / 'case.py'} shows it"]
    )
    return int(ExitCode.MATCH)
