"""The submitting commands, each from its arguments to the exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.cluster.ray_start import STOP_SECONDS
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.errors import ExitCode, LaunchError, UsageError
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.submit import address as addresses
from aclcmp.orchestrator.submit.cluster_file import ClusterFile, ClusterFileKind, read_cluster_file
from aclcmp.orchestrator.submit.output import JobConsole
from aclcmp.orchestrator.submit.state import KnownJob, recall, remember, state_file
from aclcmp.orchestrator.submit.submission import Submission, new_job_id, submission

if TYPE_CHECKING:
    from aclcmp.orchestrator.submit.client import JobClient, JobState

_STOP_PATIENCE = STOP_SECONDS + 30.0
"""Seconds until Ray has killed a job that does not end when it is asked to."""
_NOT_FOUND = 127


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Options of `aclcmp submit` besides those of the job."""

    address: str | None
    output: Path | None
    """The folder here that the report is brought to."""
    dry_run: bool = False
    up: bool = False
    render: bool = False
    detach: bool = False


def submit_file(path: Path, override: Mapping[str, object], options: SubmitOptions, cwd: Path) -> int:
    """Submit the job of a cluster file, follow it, bring its report; return the job's exit code."""
    cluster = read_cluster_file(path, override)
    beside = cwd if "working_dir" in override else path.resolve().parent
    console = JobConsole()
    if cluster.kind is ClusterFileKind.KUBERAY and not (options.render or options.address):
        raise UsageError(
            f"{path} is a KubeRay manifest: `aclcmp submit {path} --render | kubectl apply -f -` creates the cluster "
            "with the job; to submit to one that runs, forward its dashboard's port and give --address "
            "http://127.0.0.1:8265"
        )
    if options.render:
        return _render(cluster, console)
    if options.up and cluster.kind is not ClusterFileKind.LAUNCHER:
        raise UsageError(f"--up is for cluster-launcher files (`cluster_name:`, `provider:`); {path} is none")
    if cluster.kind is ClusterFileKind.LAUNCHER:
        from aclcmp.orchestrator.submit.ray_up import check_launcher

        check_launcher(path, cluster.body)
    job = submission(cluster.section, new_job_id(), beside)
    output = options.output or Path("aclcmp-runs") / job.job_id
    address = _resolve_address(cluster, options)
    if options.dry_run:
        console.dry_run(cluster, job, address, output)
        return int(ExitCode.MATCH)
    RunDir.check_vacant(output)
    if options.up:
        from aclcmp.orchestrator.submit.ray_up import bring_up

        bring_up(path)
        address = _resolve_address(cluster, options, ask_ray=True)
    return _submit(cluster, job, addresses.check_address(address), output.absolute(), options, console)


def attach(job_id: str, address: str | None, output: Path | None) -> int:
    """Follow a job that was submitted before, from its log's beginning, and bring its report."""
    console = JobConsole()
    known, client = _connect_to(job_id, address)
    folder = output or (Path(known.output) if known else Path("aclcmp-runs") / job_id)
    run_dir, what = _run_dir_of(client, job_id)
    return _follow_and_fetch(client, job_id, run_dir, folder.absolute(), what, console)


def stop(job_id: str, address: str | None) -> int:
    """Stop a job; return 0 once it is over."""
    console = JobConsole()
    _, client = _connect_to(job_id, address)
    state = client.state(job_id)
    if state.over:
        console.say(f"{job_id} was over already ({state.status.lower()})")
        return int(ExitCode.MATCH)
    _stop_and_wait(client, job_id, console)
    return int(ExitCode.MATCH)


def fetch(job_id: str, address: str | None, output: Path | None, what: Fetch) -> int:
    """Bring a job's report, or more, here; return 0 when all of it is here."""
    console = JobConsole()
    known, client = _connect_to(job_id, address)
    folder = (output or (Path(known.output) if known else Path("aclcmp-runs") / job_id)).absolute()
    run_dir, _ = _run_dir_of(client, job_id)
    if not _fetch_here(client, run_dir, folder, what, console):
        raise LaunchError(f"the run directory of {job_id} is empty; the job may not have begun")
    return int(ExitCode.MATCH)


def list_jobs(path: Path | None, address: str | None) -> int:
    """Print the jobs of a cluster, or those submitted from here with what their clusters say of them."""
    from aclcmp.orchestrator.submit.job_table import print_jobs

    if path is not None and address is None:
        cluster = read_cluster_file(path)
        address = _resolve_address(cluster, SubmitOptions(None, None), ask_ray=True)
        addresses.check_address(address)
    return print_jobs(address)


def _submit(
    cluster: ClusterFile, job: Submission, address: str, output: Path, options: SubmitOptions, console: JobConsole
) -> int:
    from aclcmp.orchestrator.submit.client import JobClient

    if warning := addresses.safety_warning(address):
        console.say(f"warning: {warning}")
    client = JobClient.connect(address)
    if job.working_dir is not None:
        console.say(f"Uploading {job.working_dir}")
    entry = KnownJob(
        job_id=job.job_id,
        address=address,
        file=str(cluster.path.resolve()),
        output=str(output),
        submitted=time.time(),
    )
    try:
        client.submit(job, what=cluster.section.fetch)
        _remember(entry, console)
        console.say(f"Submitted {job.job_id} to {address}")
    except (KeyboardInterrupt, LaunchError):
        # Not by the console, which may have been interrupted in the midst of a line, and would keep this one back.
        sys.stderr.write(f"If it was submitted already: aclcmp stop {job.job_id} --address {address}\n")
        raise
    if options.detach:
        console.how_to_return(job.job_id)
        return int(ExitCode.MATCH)
    return _follow_and_fetch(client, job.job_id, job.run_dir, output, cluster.section.fetch, console)


def _remember(entry: KnownJob, console: JobConsole) -> None:
    try:
        remember(entry)
    except OSError as error:
        console.say(f"{state_file()}: {error.strerror}; later commands on this job need --address {entry.address}")


def _follow_and_fetch(
    client: JobClient, job_id: str, run_dir: str, output: Path, what: Fetch, console: JobConsole
) -> int:
    from aclcmp.orchestrator.submit.follow import Choice, follow

    try:
        end = follow(client, job_id, console.show, console.say, lambda: console.ask(job_id))
    except KeyboardInterrupt:  # at its very beginning
        end = console.ask(job_id)
    except BrokenPipeError:  # the reader of the log has left (`| head`)
        console.close_log()
        end = Choice.DETACH
    if end is Choice.GO_ON:
        return _follow_and_fetch(client, job_id, run_dir, output, what, console)
    if end is Choice.DETACH:
        console.how_to_return(job_id)
        return int(ExitCode.INCOMPLETE)
    if end is Choice.STOP:
        _stop_and_wait(client, job_id, console)
        return int(ExitCode.FAILED)
    assert not isinstance(end, Choice)
    code = exit_code(end, console.say)
    if end.exit_code == int(ExitCode.USAGE) or end.exit_code == _NOT_FOUND:
        return code  # nothing was started
    try:
        _fetch_here(client, run_dir, output, what, console)
    except KeyboardInterrupt:
        console.say(f"The rest stays on the cluster: aclcmp fetch {job_id}")
        return code or int(ExitCode.INCOMPLETE)
    except (AclcmpError, OSError) as error:
        why = error if isinstance(error, AclcmpError) else f"{error.filename or output}: {error.strerror or error}"
        console.say(f"{why}\nTry again: aclcmp fetch {job_id}")
        return code or int(ExitCode.INCOMPLETE)
    return code


def exit_code(state: JobState, say: Callable[[str], None]) -> int:
    """Return the exit code of a job's command; a job that has none gets 3, and `say` is told why."""
    if state.exit_code == _NOT_FOUND:
        say("The head node has no aclcmp on the PATH with which its Ray was started; install it there, as here")
        return int(ExitCode.FAILED)
    if state.exit_code and state.exit_code in set(ExitCode):
        return state.exit_code
    if state.status == "SUCCEEDED":
        return int(ExitCode.MATCH)
    words = state.message.strip().splitlines()
    say(f"{state.job_id} {state.status.lower()}{': ' + words[-1] if words else ''}")
    return int(ExitCode.FAILED)


def _fetch_here(client: JobClient, run_dir: str, folder: Path, what: Fetch, console: JobConsole) -> bool:
    """Bring files here and say which; return False where there are none."""
    from aclcmp.orchestrator.submit.fetch_by_jobs import fetch_files

    with console.progress() as progress:
        found = fetch_files(client, run_dir, what, folder, console.say, progress)
    for name in found.left_out:
        console.say(f"left out for its size: {name}; `aclcmp fetch` with --all brings it")
    if found.files:
        console.say(f"Fetched {len(found.files)} files into {folder}")
        page = RunDir(folder, folder.name).report_html
        if page.exists():
            console.say(f"Page: {page}")
    return bool(found.files)


def _stop_and_wait(client: JobClient, job_id: str, console: JobConsole) -> None:
    from aclcmp.orchestrator.submit.follow import wait

    client.stop(job_id)
    console.say(f"Stopping {job_id}; it reports what it has labelled first (Ctrl-C: do not wait for that)")
    try:
        state = wait(client, job_id, _STOP_PATIENCE)
    except KeyboardInterrupt:
        console.say(f"{job_id} will have stopped within {STOP_SECONDS // 60} minutes; then: aclcmp fetch {job_id}")
        return
    if not state.over:
        raise LaunchError(f"{job_id} still runs {_STOP_PATIENCE:g} s after it was told to stop")
    console.say(f"{job_id} {state.status.lower()}\nWhat it wrote: aclcmp fetch {job_id}")


def _connect_to(job_id: str, address: str | None) -> tuple[KnownJob | None, JobClient]:
    """Connect to the server of a job: the one that is given, or the one it was submitted to."""
    known = recall(job_id)
    if address is None and known is None:
        raise UsageError(f"{job_id} was not submitted from here; give --address, the URL of its cluster's dashboard")
    from aclcmp.orchestrator.submit.client import JobClient

    return known, JobClient.connect(address or (known.address if known else None))


def _run_dir_of(client: JobClient, job_id: str) -> tuple[str, Fetch]:
    """Return a job's run directory, as a word for the head's shell, and how much of it was asked for."""
    from aclcmp.orchestrator.submit.client import FETCH, RUN_DIR

    facts = client.state(job_id).metadata
    if RUN_DIR not in facts:
        raise UsageError(f"{job_id} was not submitted by aclcmp, so its run directory is unknown")
    wanted = facts.get(FETCH)
    return facts[RUN_DIR], next((each for each in Fetch if each.value == wanted), Fetch.REPORT)


def _resolve_address(cluster: ClusterFile, options: SubmitOptions, *, ask_ray: bool = False) -> str | None:
    if options.address is not None:
        return addresses.check_address(options.address)
    if (
        cluster.address is None
        and cluster.kind is ClusterFileKind.LAUNCHER
        and (ask_ray or not (options.dry_run or options.up))
    ):
        from aclcmp.orchestrator.submit.ray_up import head_address

        return head_address(cluster)
    return cluster.address if cluster.address is None else addresses.check_address(cluster.address)


def _render(cluster: ClusterFile, console: JobConsole) -> int:
    from aclcmp.orchestrator.submit.kuberay.manifest import render

    if cluster.kind is not ClusterFileKind.KUBERAY:
        raise UsageError(f"--render is for KubeRay manifests (`apiVersion: ray.io/v1`); {cluster.path} is none")
    sys.stdout.write(render(cluster))
    return int(ExitCode.MATCH)
