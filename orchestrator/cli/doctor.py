"""The command that looks for what usually breaks, as the command line has it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aclcmp.orchestrator.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from aclcmp.orchestrator.doctor.examine import Examination


def doctor(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Cluster file, as `aclcmp submit` takes it.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Look at all hosts of the Ray cluster at HOST:PORT (or auto).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print findings and facts as one line of JSON, for programs.")
    ] = False,
) -> int:
    """Look for what usually breaks a run, on every host, and say how to mend it. Changes nothing.

    Without arguments it looks at this machine and starts a local Ray, to see that it starts. With --address it asks
    all hosts of a cluster, from one of them. With FILE it checks the file, whether its address answers, and the hosts
    behind it, by a job on the cluster where they cannot be joined from here.

    It checks: versions on all hosts, shared memory, disk, file locks, open files, ports, names and interfaces, proxies,
    the token, devices that Ray offers against those of the host, CANN with torch-npu, clocks, and how soon Ray notices
    a lost host.

    Signs: ✓ is fine; ! may go wrong, or is slower or less safe than need be; ✗ fails. Below each is its fix.

    Exit codes: 0 nothing is bad (warnings are not), 2 wrong usage or no such cluster, 4 something is bad.
    """
    from aclcmp.orchestrator.doctor.show import as_json as json_line
    from aclcmp.orchestrator.doctor.show import print_examination
    from aclcmp.orchestrator.terminal.console import report_console

    if file is not None and address is not None:
        raise UsageError("give FILE or --address: a cluster file names its address itself")
    console = report_console(sys.stdout)
    with report_console(sys.stderr).status(_activity(file, address)):
        examination = _examine(file, address)
    if as_json:
        try:
            sys.stdout.write(json_line(examination) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            console.on_broken_pipe()
    else:
        print_examination(examination, console)
    return int(ExitCode.MATCH if examination.healthy else ExitCode.INCOMPLETE)


def _activity(file: Path | None, address: str | None) -> str:
    if file is not None:
        return f"reading {file} and asking its cluster"
    return f"asking the hosts at {address}" if address is not None else "starting a local Ray"


def _examine(file: Path | None, address: str | None) -> Examination:
    from aclcmp.orchestrator.doctor.examine import examine_cluster, examine_machine

    if file is not None:
        from aclcmp.orchestrator.doctor.examine_cluster_file import examine_file

        return examine_file(file)
    return examine_machine() if address is None else examine_cluster(address)
