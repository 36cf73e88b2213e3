"""The command line: what the user asks for, checked, and handed to the stages."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.cli.doctor import doctor
from aclcmp.orchestrator.cli.options import parse_variables, split_command
from aclcmp.orchestrator.cli.reports import (
    FailOnOption,
    JsonOption,
    PolicyOption,
    diff,
    explain,
    report,
    verdict,
)
from aclcmp.orchestrator.cli.submit import attach, fetch, jobs, send_files, stop, submit
from aclcmp.orchestrator.core.job import Device, Fetch, Job, Launcher, StopAt, Visibility
from aclcmp.orchestrator.errors import ExitCode, LaunchError, UsageError
from aclcmp.orchestrator.terminal.streams import harmless_streams, to_nowhere

# click's UsageError; newer typers bring along a click of their own
_WrongUsage: Any = typer.BadParameter.__bases__[0]

_CTRL_C = 130  # typer's exit code for a KeyboardInterrupt

_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What the disk, the terminal or a permission is to blame for."""

app = typer.Typer(
    help="Run a labelled inference script on every device; name the first layer that goes wrong, where, and why.",
    epilog='`aclcmp --exec "python run.py" --ranks 8` is short for `aclcmp run --exec ...`.',
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run_cli(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code. User errors are one line on stderr, bugs a traceback."""
    with harmless_streams():
        return _run_cli(list(arguments))


def _run_cli(arguments: list[str]) -> int:
    if not arguments:
        return _fail('no command; try `aclcmp --exec "bash run.sh" --ranks 8`, or `aclcmp --help`', ExitCode.USAGE)
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version"):
        arguments.insert(0, "run")
    try:
        code = int(app(arguments, prog_name="aclcmp", standalone_mode=False) or 0)
        if code == _CTRL_C:
            raise KeyboardInterrupt
        return code
    except _WrongUsage as error:
        return _fail(" ".join(error.format_message().split()), ExitCode.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", ExitCode.FAILED)
    except LaunchError as error:
        return _fail(str(error), ExitCode.FAILED)
    except AclcmpError as error:
        return _fail(str(error), ExitCode.USAGE)
    except Exception as error:
        if _from_ctrl_c(error):
            return _fail("interrupted", ExitCode.FAILED)
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            to_nowhere(1)  # what stdout still holds could not be written at exit either
            return _fail(f"{error.filename or 'cannot write'}: {error.strerror}", ExitCode.USAGE)
        traceback.print_exc()
        return _fail("this is a bug in aclcmp; please report it with the lines above", ExitCode.BUG)


def _from_ctrl_c(error: BaseException | None) -> bool:
    """Whether an exception is what became of a KeyboardInterrupt, e.g. within a callback of h5py."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _fail(message: str, code: ExitCode) -> int:
    sys.stderr.write(f"aclcmp: error: {message}\n")
    return int(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aclcmp {version('aclcmp')}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    command: Annotated[str, typer.Option("--exec", help='Command to run on every rank, e.g. "bash run.sh". No shell.')],
    ranks: Annotated[int, typer.Option(help="Number of ranks.")] = 1,
    nodes: Annotated[int | None, typer.Option(help="Spread the ranks evenly over this many nodes.")] = None,
    device: Annotated[Device, typer.Option(help="What each rank gets.")] = Device.AUTO,
    address: Annotated[
        str | None, typer.Option(help="Join the Ray cluster at HOST:PORT (or auto). Default: start a local Ray.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="New run directory. Default: aclcmp-runs/<date>-<time>.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Set a variable for the ranks. Repeatable.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which ranks that still run are stopped.")] = None,
    visibility: Annotated[
        Visibility, typer.Option(help="A rank sees all granted devices of its node (as under torchrun), or its own.")
    ] = Visibility.NODE,
    launcher: Annotated[
        Launcher, typer.Option(help="script: the command starts its own ranks (torchrun, mpirun), once per node.")
    ] = Launcher.RAY,
    strict: Annotated[
        bool, typer.Option("--strict", help="A label that cannot be recorded raises in the script.")
    ] = False,
    no_compare: Annotated[bool, typer.Option("--no-compare", help="Run and record only; compare later.")] = False,
    low_level: Annotated[
        bool,
        typer.Option(
            "--low-level", help="Make the accelerated library dump its tensors, for labels with a tensor_path."
        ),
    ] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove the library's dumps that match.")] = False,
    labels: Annotated[
        str, typer.Option(metavar="REGEX", help="Record only labels in whose id this is found.", show_default=False)
    ] = "",
    tasks: Annotated[str, typer.Option(metavar="0-3,7", help="Record only these tasks.", show_default=False)] = "",
    capture: Annotated[
        Capture,
        typer.Option(help="What is kept of a tensor: all, moments and a random projection, or moments alone."),
    ] = Capture.FULL,
    fetch: Annotated[
        Fetch,
        typer.Option(help="What is brought here from the other hosts at the end: shards, or logs and dumps as well."),
    ] = Fetch.REPORT,
    policy: PolicyOption = None,
    floor: Annotated[
        str | None,
        typer.Option(
            metavar="perturb|repeat|PROFILE",
            help="Where noise floors come from: a second run, its input perturbed or not, or a stored profile.",
        ),
    ] = None,
    fail_on: FailOnOption = None,
    stop_at: Annotated[
        StopAt, typer.Option(help="Stop the ranks as soon as a label is seen that is wrong by itself.")
    ] = StopAt.NEVER,
    as_json: JsonOption = False,
) -> int:
    """Run a command on every rank, compare what it labelled, report.

    Exit codes: 0 everything compared and matching, 1 diverged, 2 wrong usage, 3 a rank failed or timed out,
    4 incomplete (something was missing or nothing was compared), 70 a bug in aclcmp.
    """
    from aclcmp.orchestrator.cli.commands import run_job
    from aclcmp.orchestrator.pipeline.judging_options import read_judging_options

    terms = read_judging_options(policy, fail_on, floor)
    if terms.repeat is not None:
        raise UsageError(f"--floor {floor} is a folder; give perturb, repeat or a profile file")
    if clean and no_compare:
        raise UsageError("--clean removes dumps that match, and --no-compare compares none; give one of them")
    if stop_at is not StopAt.NEVER and no_compare:
        raise UsageError(
            f"--stop-at {stop_at.value} needs a comparison, and --no-compare allows none; give one of them"
        )
    if stop_at is not StopAt.NEVER and terms.again is not None:
        words = f"--stop-at {stop_at.value} judges while the command runs, --floor {floor} measures in a second run"
        raise UsageError(f"{words}; give a profile, which `aclcmp report RUN --save-floor FILE` writes")
    job = Job(
        command=split_command(command),
        ranks=ranks,
        cwd=Path.cwd(),
        nodes=nodes,
        device=device,
        env=parse_variables(env or []),
        timeout=timeout,
        visibility=visibility,
        launcher=launcher,
        strict=strict,
        low_level=low_level,
        labels=labels,
        tasks=tasks,
        capture=capture,
    )
    return int(
        run_job(
            job,
            address,
            output,
            terms,
            compare=not no_compare,
            clean=clean,
            as_json=as_json,
            fetch=fetch,
            stop_at=stop_at,
        )
    )


@app.command()
def compare(
    run_directory: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run directory, e.g. aclcmp-runs/20260101-120000; or the golden run.")
    ],
    actual: Annotated[
        Path | None, typer.Argument(metavar="ACTUAL", help="Run directory to compare with the first one.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Compare on the hosts of the Ray cluster at HOST:PORT, where their shards lie."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="New folder for the report on two runs. Default: aclcmp-runs/<date>-<time>.")
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
    clean: Annotated[bool, typer.Option("--clean", help="Remove the library's dumps that match.")] = False,
    policy: PolicyOption = None,
    floor: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|PROFILE",
            help="Where noise floors come from: another run of the same script, or a stored profile.",
        ),
    ] = None,
    fail_on: FailOnOption = None,
    as_json: JsonOption = False,
) -> int:
    """Compare a run again, from its shards, and report. A shard that its rank never sealed is read all the same.

    With two runs, the golden labels ("pta") of the first are compared with the actual ones ("acl") of the second,
    whatever ranks hold them; a run that labelled one side only is that side.
    """
    from aclcmp.orchestrator.cli.commands import compare_again, compare_two, suggest_ids
    from aclcmp.orchestrator.pipeline.judging_options import read_judging_options

    terms = read_judging_options(policy, fail_on, floor)
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
        typer.echo(f"{result.damaged:,} damaged lines in the journal: more labels may be lost; the old files are kept")
    for record in result.lost:
        typer.echo(f"  lost: {record.data_id} ({record.side}), task {record.task}: {record.error}")
    return int(ExitCode.INCOMPLETE if result.lost or result.damaged else ExitCode.MATCH)


for _command in (report, explain, verdict, diff, doctor, submit, jobs, attach, stop, fetch):
    app.command()(_command)
app.command(hidden=True)(send_files)
