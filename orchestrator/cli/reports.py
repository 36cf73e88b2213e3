"""The commands on a report that exists, as the command line has them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from aclcmp.orchestrator.cli.options import typer_option
from aclcmp.orchestrator.core.option_fields import HelpGroup
from aclcmp.orchestrator.errors import ExitCode, FailOn, UsageError

RunArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN]",
        help="Run directory, or the folder of the report on two runs. Default: the latest.",
        show_default=False,
    ),
]
RunAndLabel = Annotated[
    list[str],
    typer.Argument(
        metavar="[RUN] LABEL",
        help='The run (default: the latest), and an id, or a glob such as "layers.2.**".',
        show_default=False,
    ),
]
PolicyOption = Annotated[Path | None, typer_option("policy")]
FailOnOption = Annotated[FailOn | None, typer_option("fail_on")]
SecondLookOption = Annotated[str | None, typer_option("second_look")]
CleanOption = Annotated[bool, typer_option("clean")]
JsonOption = Annotated[bool, typer_option("as_json")]
_TASK = typer.Option(help="Only in this task.", show_default=False)
_RANK = typer.Option(help="This rank in full, instead of the worst.", show_default=False)


def verdict(
    run_directory: RunArgument = None,
    policy: PolicyOption = None,
    floor: Annotated[
        Path | None,
        typer.Option(
            metavar="PROFILE",
            rich_help_panel=HelpGroup.JUDGING.value,
            help="Noise floors by `aclcmp report RUN --save-floor PROFILE`.",
        ),
    ] = None,
    fail_on: FailOnOption = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write the report files of RUN anew.", rich_help_panel=HelpGroup.OUTPUT.value)
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Judge a run again by another policy, from its report alone: no tensors, no ranks, no Ray.

    Exit codes as of `aclcmp run`.
    """
    from aclcmp.orchestrator.pipeline.judging_options import read_judging_options
    from aclcmp.orchestrator.pipeline.stored_reports import judge_again, show

    if floor is not None and not floor.is_file():
        raise UsageError(f"--floor {floor} is no file; give a profile, or compare again for other floors")
    report, run = judge_again(
        chosen_run(run_directory),
        read_judging_options(policy, fail_on, None if floor is None else str(floor)),
        save=save,
    )
    show(report, run if save else None, as_json=as_json)
    return int(report.judgement.exit_code)


def explain(
    words: RunAndLabel,
    task: Annotated[int | None, _TASK] = None,
    rank: Annotated[int | None, _RANK] = None,
) -> int:
    """Print everything known about one label: errors, limits and by how much they would have to move, where and why."""
    from aclcmp.orchestrator.pipeline.stored_reports import print_explanation

    run, label = chosen_run_and_label("explain", words)
    return int(print_explanation(run, label, task, rank))


def diff(
    first: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN_A]", help="Run directory, the older one. Default: the latest but one.", show_default=False
        ),
    ] = None,
    second: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN_B]", help="Run directory, the newer one. Default: the latest.", show_default=False
        ),
    ] = None,
) -> int:
    """Say what was mended from one run to another, and what is new. Exit code 1 where anything got worse, else 0."""
    from aclcmp.orchestrator.pipeline.stored_reports import print_diff
    from aclcmp.orchestrator.run.run_list import latest_two

    if first is None:
        first, second = latest_two()
        _say(f"Runs: {first} and {second}, the latest two")
    return int(print_diff(first, chosen_run(second)))


def report(
    run_directory: RunArgument = None,
    html: Annotated[bool, typer.Option("--html", help="Write report.html: one page that works offline.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on this host alone, of a report of any size, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(metavar="PORT", help="Port of --serve; 0 takes any that is free.")] = 0,
    save_floor: Annotated[
        Path | None,
        typer.Option(metavar="PROFILE", help="Add the errors of this run, which must be right, to a floor profile."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Show all rows of the table: only labels that are alike share one.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show the report of a run again, or write it in another form. Exit code 0 whatever the report says."""
    from aclcmp.orchestrator.pipeline.stored_reports import (
        print_lines,
        read_stored_report,
        save_profile,
        serve_page,
        show,
        write_page,
    )

    if serve:
        if html or save_floor or as_json:
            raise UsageError("--serve stands alone: it serves the page until Ctrl-C")
        serve_page(chosen_run(run_directory), port)
        return int(ExitCode.MATCH)
    if port:
        raise UsageError("--port belongs to --serve")
    run, found = read_stored_report(chosen_run(run_directory))
    if html:
        print_lines([f"Page: {write_page(found, run)}"], as_json=as_json)
    if save_floor is not None:
        print_lines([save_profile(found, save_floor)], as_json=as_json)
    if as_json or not (html or save_floor):
        show(found, as_json=as_json, full=full)
    return int(ExitCode.MATCH)


def chosen_run(given: Path | None) -> Path:
    """Return the run that is given, else the latest, and say which that is. Raises UsageError where there is none."""
    if given is not None:
        return given
    from aclcmp.orchestrator.run.run_list import latest_run

    run = latest_run()
    _say(f"Run: {run}, the latest")
    return run


def chosen_run_and_label(command: str, words: Sequence[str]) -> tuple[Path, str]:
    """Return the run and the label that `[RUN] LABEL` gives. Raises UsageError where they are none."""
    from aclcmp.orchestrator.run.run_list import find_run

    if len(words) > 2:
        raise UsageError(f"{command} takes a run and one label; quote a glob: aclcmp {command} {words[0]} '**'")
    *given, label = words
    if not given and find_run(Path(label)) is not None:
        raise UsageError(f'{label} is a run; name a label of it, too: aclcmp {command} {label} "**.mlp"')
    return chosen_run(Path(given[0]) if given else None), label


def _say(line: str) -> None:
    """Print a line on stderr: stdout may be for programs."""
    from aclcmp.orchestrator.core.text import visible

    plain = not (sys.stderr.encoding or "").lower().startswith("utf")
    typer.echo(visible(line, plain), err=True)
