"""The command line: what the user asks for, checked, and handed to the stages."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from aclcmp import __version__
from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.cli.bisect import bisect
from aclcmp.orchestrator.cli.case import case
from aclcmp.orchestrator.cli.doctor import doctor
from aclcmp.orchestrator.cli.engines import check, golden
from aclcmp.orchestrator.cli.options import GroupedCommand, make_options, takes
from aclcmp.orchestrator.cli.reports import (
    CleanOption,
    FailOnOption,
    JsonOption,
    PolicyOption,
    SecondLookOption,
    diff,
    explain,
    report,
    verdict,
)
from aclcmp.orchestrator.cli.runs import prune, runs
from aclcmp.orchestrator.cli.submit import attach, fetch, jobs, send_files, stop, submit
from aclcmp.orchestrator.cli.usage import teach, with_command
from aclcmp.orchestrator.core.job import RunOptions
from aclcmp.orchestrator.core.option_checks import find_refusal
from aclcmp.orchestrator.core.option_fields import HelpGroup, as_option
from aclcmp.orchestrator.core.text import count
from aclcmp.orchestrator.errors import ExitCode, LaunchError, UsageError
from aclcmp.orchestrator.run.directory import RunDir, follow_link
from aclcmp.orchestrator.terminal.streams import harmless_streams, to_nowhere

# click's UsageError; newer typers bring along a click of their own
_WrongUsage: Any = typer.BadParameter.__bases__[0]

_OF_THE_PROGRAM = ("-h", "--help", "--version", "--install-completion", "--show-completion")
_COMPLETES = "_ACLCMP_COMPLETE"
_CTRL_C = 130  # typer's exit code for a KeyboardInterrupt

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What the disk, the terminal or a permission is to blame for."""

app = typer.Typer(
    help="Run a labelled inference script on every device; name the first layer that goes wrong, where, and why.",
    epilog='`aclcmp --exec "python run.py" --ranks 8` is short for `aclcmp run --exec ...`.',
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run_cli(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code. User errors are one line on stderr, bugs a traceback."""
    with harmless_streams():
        return _run_cli(list(arguments))


def _run_cli(arguments: list[str]) -> int:
    if _COMPLETES in os.environ:  # the shell asks which words fit
        return int(app(arguments, prog_name="aclcmp", standalone_mode=False) or 0)
    if not arguments:
        return _fail('no command; try `aclcmp --exec "bash run.sh" --ranks 8`, or `aclcmp --help`', ExitCode.USAGE)
    if arguments[0].startswith("-") and arguments[0] not in _OF_THE_PROGRAM:
        arguments.insert(0, "run")
    try:
        code = int(app(with_command(arguments), prog_name="aclcmp", standalone_mode=False) or 0)
        if code == _CTRL_C:
            raise KeyboardInterrupt
        return code
    except _WrongUsage as error:
        return _fail(teach(error, arguments), ExitCode.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", ExitCode.FAILED)
    except LaunchError as error:
        return _fail(str(error), ExitCode.FAILED)
    except AclcmpError as error:
        return _fail(str(error), ExitCode.USAGE)
    except Exception as error:
        if _is_ctrl_c(error):
            return _fail("interrupted", ExitCode.FAILED)
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            to_nowhere(1)  # what stdout still holds could not be written at exit either
            return _fail(f"{error.filename or 'cannot write'}: {error.strerror}", ExitCode.USAGE)
        traceback.print_exc()
        return _fail("this is a bug in aclcmp; please report it with the lines above", ExitCode.BUG)


def _is_ctrl_c(error: BaseException | None) -> bool:
    """Check whether an exception is what became of a KeyboardInterrupt, e.g. within a callback of h5py."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _fail(message: str, code: ExitCode) -> int:
    sys.stderr.write(f"aclcmp: error: {message}\n")
    return int(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aclcmp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(cls=GroupedCommand)
@takes(RunOptions)
def run(**values: Any) -> int:
    """Run a command on every rank, compare what it labelled, report.

    `aclcmp run --ranks 8 -- python run.py --fast` is the same as `--exec "python run.py --fast"`.

    Exit codes: 0 everything compared and matching, 1 diverged, 2 wrong usage, 3 a rank failed or timed out,
    4 incomplete (something was missing or nothing was compared), 70 a bug in aclcmp.
    """
    options = make_options(RunOptions, values)
    if refusal := find_refusal(options, as_option):
        raise refusal.as_usage_error()
    from aclcmp.orchestrator.cli.commands import run_job
    from aclcmp.orchestrator.pipeline.judging_options import read_judging_options

    terms = read_judging_options(options.policy, options.fail_on, options.floor, options.second_look)
    if terms.repeat is not None:
        raise UsageError(f"--floor {options.floor} is a folder; give perturb, repeat or a profile file")
    return int(run_job(options, terms))


@app.command(cls=GroupedCommand)
def compare(
    run_directory: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run directory, e.g. aclcmp-runs/20260101-120000; or the golden run.")
    ],
    actual: Annotated[
        Path | None, typer.Argument(metavar="ACTUAL", help="Run directory to compare with the first one.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Compare on the hosts of the Ray cluster at HOST:PORT, where their shards lie.",
            rich_help_panel=HelpGroup.RAY.value,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="New folder for the report on two runs. Default: aclcmp-runs/<date>-<time>.",
            rich_help_panel=HelpGroup.OUTPUT.value,
        ),
    ] = None,
    id_map: Annotated[
        Path | None,
        typer.Option("--map", help="File of lines `golden-pattern -> actual-pattern`, where ids of two runs differ."),
    ] = None,
    suggest_map: Annotated[
        bool, typer.Option("--suggest-map", help="Print a proposal for such a file, and compare nothing.")
    ] = False,
    layouts: Annotated[
        Path | None,
        typer.Option(
            help="File of lines `[golden|actual] pattern -> Shard(dim=1)`, where layouts are to be corrected."
        ),
    ] = None,
    clean: CleanOption = False,
    policy: PolicyOption = None,
    floor: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|PROFILE",
            help="Where noise floors come from: another run of the same script, or a stored profile.",
            rich_help_panel=HelpGroup.JUDGING.value,
        ),
    ] = None,
    fail_on: FailOnOption = None,
    second_look: SecondLookOption = None,
    as_json: JsonOption = False,
) -> int:
    """Compare a run again, from its shards, and report. A shard that its rank never sealed is read all the same.

    With two runs, the golden labels ("pta") of the first are compared with the actual ones ("acl") of the second,
    whatever ranks hold them; a run that labelled one side only is that side.
    """
    for side in (run_directory, actual):
        if side is not None:
            RunDir.check_exists(side)
    run_directory, actual = follow_link(run_directory), None if actual is None else follow_link(actual)
    from aclcmp.orchestrator.cli.commands import compare_again, compare_two, suggest_ids
    from aclcmp.orchestrator.pipeline.judging_options import read_judging_options

    terms = read_judging_options(policy, fail_on, floor, second_look)
    if terms.again is not None:
        raise UsageError(f"--floor {floor} needs a launch; give another run of the script, or a profile file")
    if actual is not None:
        if address is not None:
            raise UsageError(
                "--address belongs to the comparison of one run; two runs are compared on one host: bring what lies "
                "on others with `aclcmp fetch RUN --shards`"
            )
        if clean:
            raise UsageError("--clean belongs to the comparison of one run; leave it out")
        if suggest_map:
            typer.echo(suggest_ids(run_directory, actual), nl=False)
            return int(ExitCode.MATCH)
        if terms.repeat is not None:
            raise UsageError("--floor RUN belongs to the comparison of one run; two runs take a profile")
        return int(compare_two(run_directory, actual, output, id_map, layouts, terms, as_json=as_json))
    if output is not None:
        raise UsageError("--output belongs to the comparison of two runs; one run's report goes into its folder")
    if id_map is not None or suggest_map:
        raise UsageError("--map and --suggest-map belong to the comparison of two runs: aclcmp compare GOLDEN ACTUAL")
    return int(compare_again(run_directory, layouts, terms, clean=clean, as_json=as_json, address=address))


@app.command()
def recover(
    shard: Annotated[Path, typer.Argument(metavar="SHARD", help="A torn shard, e.g. RUN/shards/rank00003.h5.")],
) -> int:
    """Rebuild a torn shard (its rank was killed) into an ordinary HDF5 file, from its journal."""
    from aclcmp.labeling.shard.recovery import recover as rebuild

    result = rebuild(shard)
    if not result.rebuilt and not result.damaged:
        typer.echo(f"{shard} is whole; nothing to recover")
    for path in result.rebuilt:
        typer.echo(f"rebuilt {path}")
    typer.echo(f"{result.kept:,} labels kept, {len(result.lost):,} lost")
    if result.damaged:
        typer.echo(
            f"{count(result.damaged, 'damaged line')} in the journal: more labels may be lost; the old files are kept"
        )
    for record in result.lost:
        typer.echo(f"  lost: {record.data_id} ({record.side}), task {record.task}: {record.error}")
    return int(ExitCode.INCOMPLETE if result.lost or result.damaged else ExitCode.MATCH)


for _command in (
    *(check, golden, bisect, case, report, explain, verdict, diff, runs, prune),
    *(doctor, submit, jobs, attach, stop, fetch),
):
    app.command(cls=GroupedCommand)(_command)
app.command(hidden=True)(send_files)
