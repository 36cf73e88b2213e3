"""The commands on the runs that lie beside each other, as the command line has them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.run.directory import RUNS

FolderArgument = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder that the runs lie in.")]


def runs(folder: FolderArgument = Path(RUNS)) -> int:
    """List the runs in a folder, the newest last: what they found, and what they take of the disk."""
    from aclcmp.orchestrator.report.text.runs import print_runs
    from aclcmp.orchestrator.run.run_list import runs_in
    from aclcmp.orchestrator.terminal.console import report_console

    found = runs_in(_existing(folder))
    if not found:
        raise UsageError(f"{folder} holds no run")
    print_runs(found, report_console(sys.stdout))
    return int(ExitCode.MATCH)


def prune(
    folder: FolderArgument = Path(RUNS),
    keep: Annotated[int, typer.Option(min=0, help="So many of the newest runs keep everything.")] = 3,
    yes: Annotated[bool, typer.Option("--yes", help="Remove. Without it, only tell what would be removed.")] = False,
) -> int:
    """Remove the shards and the library's dumps of old runs. Reports and logs stay.

    What is kept: runs that were not compared yet, and those whose golden values serve a run that is kept.
    """
    from aclcmp.orchestrator.core.text import count
    from aclcmp.orchestrator.pipeline.stored_reports import print_lines
    from aclcmp.orchestrator.report.text.runs import megabytes
    from aclcmp.orchestrator.run.prune import old_data, remove

    found = old_data(_existing(folder), keep)
    for each in found:
        print_lines([f"{each.run.root.name}: {f'kept, {each.why_kept}' if each.why_kept else megabytes(each.size)}"])
    due = [each for each in found if not each.why_kept]
    total = megabytes(sum(each.size for each in due))
    if not due:
        why = f": the newest {count(keep, 'run')} keep everything" if keep and not found else ""
        typer.echo(f"Nothing to remove{why}")
    elif yes:
        for each in due:
            remove(each)
        typer.echo(f"Removed {total} of {count(len(due), 'run')}; reports and logs stay")
    else:
        typer.echo(f"{total} of {count(len(due), 'run')} would be removed; nothing is yet: add --yes")
    return int(ExitCode.MATCH)


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; runs lie in {RUNS} of the folder in which they were started")
    return folder
