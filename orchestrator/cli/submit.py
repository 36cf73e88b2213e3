"""The commands that submit jobs to clusters and look after them, as the command line has them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aclcmp.orchestrator.cli.options import given_overrides, takes_overrides
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.errors import UsageError

AddressOption = Annotated[
    str | None, typer.Option(metavar="URL", help="Dashboard of the head node, e.g. http://10.0.0.1:8265.")
]
OutputOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Where its report comes to, here.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="As printed by `aclcmp submit` and `aclcmp jobs`.")]


@takes_overrides
def submit(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Cluster file (YAML) with the job; see cluster_configs/.")
    ],
    working_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to upload, instead of the file's.")
    ] = None,
    address: AddressOption = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the report comes to, here. Default: aclcmp-runs/<job id>."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Submit, and do not follow.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be submitted, and do nothing.")] = False,
    up: Annotated[bool, typer.Option("--up", help="Run `ray up` first, for a cluster-launcher file.")] = False,
    render: Annotated[
        bool, typer.Option("--render", help="Print the RayJob of a KubeRay file, for kubectl, and do nothing.")
    ] = False,
    **options: Any,
) -> int:
    """Run a job on a cluster from here: upload, follow its log, bring its report.

    Ctrl-C asks whether to stop the job or to let it run. Exit codes as of `aclcmp run`; 4 where it was left running.
    """
    from aclcmp.orchestrator.submit.actions import SubmitOptions, submit_file

    override = given_overrides(options)
    if working_dir is not None:
        override["working_dir"] = str(working_dir)
    return submit_file(file, override, SubmitOptions(address, output, dry_run, up, render, detach), Path.cwd())


def jobs(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Cluster file: all jobs there.")] = None,
    address: AddressOption = None,
) -> int:
    """List the jobs submitted from here, or all of a cluster."""
    from aclcmp.orchestrator.submit.actions import list_jobs

    return list_jobs(file, address)


def attach(job_id: JobArgument, address: AddressOption = None, output: OutputOption = None) -> int:
    """Follow a job again, from its log's beginning, and bring its report."""
    from aclcmp.orchestrator.submit import actions

    return actions.attach(job_id, address, output)


def stop(job_id: JobArgument, address: AddressOption = None) -> int:
    """Stop a job."""
    from aclcmp.orchestrator.submit import actions

    return actions.stop(job_id, address)


def fetch(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Job id, or a run directory whose shards lie on other hosts.")
    ],
    shards: Annotated[bool, typer.Option("--shards", help="The shards too.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="The whole run directory.")] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Of a job: the dashboard's URL. Of a run directory: the Ray cluster at HOST:PORT."),
    ] = None,
    output: OutputOption = None,
) -> int:
    """Bring the report of a job here, or more of it. What came already is not sent again."""
    from aclcmp.orchestrator.submit.state import recall

    what = Fetch.ALL if everything else Fetch.SHARDS if shards else Fetch.REPORT
    job = recall(Path(target).name)
    if job is not None and (target == job.job_id or Path(target).absolute() == Path(job.output)):
        target = job.job_id  # where its report came to is no run directory of this host
    elif Path(target).is_dir():
        if output is not None:
            raise UsageError("--output belongs to a job's id; a run directory's files come into it")
        from aclcmp.orchestrator.transfer.fetch_command import fetch_run

        return int(fetch_run(Path(target), address, Fetch.SHARDS if what is Fetch.REPORT else what))
    if "/" in target:
        raise UsageError(f"{target} is neither a run directory nor a job's id")
    from aclcmp.orchestrator.submit import actions

    return actions.fetch(target, address, output, what)


def send_files(
    run_directory: Annotated[Path, typer.Argument()],
    request: Annotated[str, typer.Argument()],
) -> int:
    """Write files of a run directory into this job's log; `aclcmp fetch` runs it on the cluster."""
    from aclcmp.orchestrator.transfer.log_send import main

    main(run_directory, request)
    return 0
