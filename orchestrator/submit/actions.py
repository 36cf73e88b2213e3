"""What the submitting commands do, each from its arguments to the exit code."""

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
from aclcmp.orchestrator.submit.clusterfile import ClusterFile, Shape, read_cluster_file
from aclcmp.orchestrator.submit.command import Submission, new_job_id, submission
from aclcmp.orchestrator.submit.output import Talk
from aclcmp.orchestrator.submit.state import Remembered, recall, remember, state_file

if TYPE_CHECKING:
    from aclcmp.orchestrator.submit.client import JobClient, JobState

_STOP_PATIENCE = STOP_SECONDS + 30.0
"""So long it takes until Ray has killed a job that does not end when it is told to."""
_NOT_FOUND = 127


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says besides the job."""

    address: str | None
    output: Path | None
    """Where the report comes to, here."""
    dry_run: bool = False
    up: bool = False
    render: bool = False
    detach: bool = False


def submit_file(path: Path, override: Mapping[str, object], wishes: Wishes, cwd: Path) -> int:
    """Submit the job of a cluster file, follow it, bring its report; return the job's exit code."""
    cluster = read_cluster_file(path, override)
    beside = cwd if "working_dir" in override else path.resolve().parent
    talk = Talk()
    if cluster.shape is Shape.KUBERAY and not (wishes.render or wishes.address):
        raise UsageError(
            f"{path} is a KubeRay manifest: `aclcmp submit {path} --render | kubectl apply -f -` creates the cluster "
            "with the job; to submit to one that runs, forward its dashboard's port and give --address "
            "http://127.0.0.1:8265"
        )
    if wishes.render:
        return _render(cluster, talk)
    if wishes.up and cluster.shape is not Shape.LAUNCHER:
        raise UsageError(f"--up is for cluster-launcher files (`cluster_name:`, `provider:`); {path} is none")
    if cluster.shape is Shape.LAUNCHER:
        from aclcmp.orchestrator.submit.ray_up import check_launcher

        check_launcher(path, cluster.body)
    job = submission(cluster.section, new_job_id(), beside)
    output = wishes.output or Path("aclcmp-runs") / job.job_id
    address = _resolved_address(cluster, wishes)
    if wishes.dry_run:
        talk.dry_run(cluster, job, address, output)
        return int(ExitCode.MATCH)
    RunDir.check_vacant(output)
    if wishes.up:
        from aclcmp.orchestrator.submit.ray_up import bring_up

        bring_up(path)
        address = _resolved_address(cluster, wishes, asking=True)
    return _submit(cluster, job, addresses.checked(address), output.absolute(), wishes, talk)


def attach(job_id: str, address: str | None, output: Path | None) -> int:
    """Follow a job that was submitted before, from its log's beginning, and bring its report."""
    talk = Talk()
    known, client = _found(job_id, address)
    folder = output or (Path(known.output) if known else Path("aclcmp-runs") / job_id)
    run_dir, what = _aim(client, job_id)
    return _followed(client, job_id, run_dir, folder.absolute(), what, talk)


def stop(job_id: str, address: str | None) -> int:
    """Stop a job; return 0 once it is over."""
    talk = Talk()
    _, client = _found(job_id, address)
    state = client.state(job_id)
    if state.over:
        talk.say(f"{job_id} was over already ({state.status.lower()})")
        return int(ExitCode.MATCH)
    _stopped(client, job_id, talk)
    return int(ExitCode.MATCH)


def fetch(job_id: str, address: str | None, output: Path | None, what: Fetch) -> int:
    """Bring a job's report, or more, here; return 0 when all of it is here."""
    talk = Talk()
    known, client = _found(job_id, address)
    folder = (output or (Path(known.output) if known else Path("aclcmp-runs") / job_id)).absolute()
    run_dir, _ = _aim(client, job_id)
    if not _brought(client, run_dir, folder, what, talk):
        raise LaunchError(f"the run directory of {job_id} is empty; the job may not have begun")
    return int(ExitCode.MATCH)


def list_jobs(path: Path | None, address: str | None) -> int:
    """Print the jobs of a cluster, or those submitted from here with what their clusters say of them."""
    from aclcmp.orchestrator.submit.listing import print_jobs

    if path is not None and address is None:
        cluster = read_cluster_file(path)
        address = _resolved_address(cluster, Wishes(None, None), asking=True)
        addresses.checked(address)
    return print_jobs(address)


def _submit(cluster: ClusterFile, job: Submission, address: str, output: Path, wishes: Wishes, talk: Talk) -> int:
    from aclcmp.orchestrator.submit.client import JobClient

    if warning := addresses.warning(address):
        talk.say(f"warning: {warning}")
    client = JobClient.connect(address)
    if job.working_dir is not None:
        talk.say(f"Uploading {job.working_dir}")
    entry = Remembered(
        job_id=job.job_id,
        address=address,
        file=str(cluster.path.resolve()),
        output=str(output),
        submitted=time.time(),
    )
    try:
        client.submit(job, what=cluster.section.fetch)
        _remember(entry, talk)
        talk.say(f"Submitted {job.job_id} to {address}")
    except (KeyboardInterrupt, LaunchError):
        # Not by the console, which may have been interrupted in the midst of a line, and would keep this one back.
        sys.stderr.write(f"If it was submitted already: aclcmp stop {job.job_id} --address {address}\n")
        raise
    if wishes.detach:
        talk.how_to_return(job.job_id)
        return int(ExitCode.MATCH)
    return _followed(client, job.job_id, job.run_dir, output, cluster.section.fetch, talk)


def _remember(entry: Remembered, talk: Talk) -> None:
    try:
        remember(entry)
    except OSError as error:
        talk.say(f"{state_file()}: {error.strerror}; later commands on this job need --address {entry.address}")


def _followed(client: JobClient, job_id: str, run_dir: str, output: Path, what: Fetch, talk: Talk) -> int:
    from aclcmp.orchestrator.submit.follow import Choice, follow

    try:
        end = follow(client, job_id, talk.show, talk.say, lambda: talk.ask(job_id))
    except KeyboardInterrupt:  # at its very beginning
        end = talk.ask(job_id)
    except BrokenPipeError:  # who read the log has left (`| head`)
        talk.close_log()
        end = Choice.DETACH
    if end is Choice.GO_ON:
        return _followed(client, job_id, run_dir, output, what, talk)
    if end is Choice.DETACH:
        talk.how_to_return(job_id)
        return int(ExitCode.INCOMPLETE)
    if end is Choice.STOP:
        _stopped(client, job_id, talk)
        return int(ExitCode.FAILED)
    assert not isinstance(end, Choice)
    code = exit_code(end, talk.say)
    if end.exit_code == int(ExitCode.USAGE) or end.exit_code == _NOT_FOUND:
        return code  # nothing was started
    try:
        _brought(client, run_dir, output, what, talk)
    except KeyboardInterrupt:
        talk.say(f"The rest stays on the cluster: aclcmp fetch {job_id}")
        return code or int(ExitCode.INCOMPLETE)
    except (AclcmpError, OSError) as error:
        why = error if isinstance(error, AclcmpError) else f"{error.filename or output}: {error.strerror or error}"
        talk.say(f"{why}\nTry again: aclcmp fetch {job_id}")
        return code or int(ExitCode.INCOMPLETE)
    return code


def exit_code(state: JobState, say: Callable[[str], None]) -> int:
    """The command's exit code; what has none is 3, and said."""
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


def _brought(client: JobClient, run_dir: str, folder: Path, what: Fetch, talk: Talk) -> bool:
    """Bring files here and say which; return whether there are any."""
    from aclcmp.orchestrator.submit.fetch import fetch_files

    with talk.progress() as progress:
        found = fetch_files(client, run_dir, what, folder, talk.say, progress)
    for name in found.left_out:
        talk.say(f"left out for its size: {name}; `aclcmp fetch` with --all brings it")
    if found.files:
        talk.say(f"Fetched {len(found.files)} files into {folder}")
        page = RunDir(folder, folder.name).report_html
        if page.exists():
            talk.say(f"Page: {page}")
    return bool(found.files)


def _stopped(client: JobClient, job_id: str, talk: Talk) -> None:
    from aclcmp.orchestrator.submit.follow import wait

    client.stop(job_id)
    talk.say(f"Stopping {job_id}; it reports what it has labelled first (Ctrl-C: do not wait for that)")
    try:
        state = wait(client, job_id, _STOP_PATIENCE)
    except KeyboardInterrupt:
        talk.say(f"{job_id} will have stopped within {STOP_SECONDS // 60} minutes; then: aclcmp fetch {job_id}")
        return
    if not state.over:
        raise LaunchError(f"{job_id} still runs {_STOP_PATIENCE:g} s after it was told to stop")
    talk.say(f"{job_id} {state.status.lower()}\nWhat it wrote: aclcmp fetch {job_id}")


def _found(job_id: str, address: str | None) -> tuple[Remembered | None, JobClient]:
    """Connect to the server of a job: the one that is given, or the one it was submitted to."""
    known = recall(job_id)
    if address is None and known is None:
        raise UsageError(f"{job_id} was not submitted from here; give --address, the URL of its cluster's dashboard")
    from aclcmp.orchestrator.submit.client import JobClient

    return known, JobClient.connect(address or (known.address if known else None))


def _aim(client: JobClient, job_id: str) -> tuple[str, Fetch]:
    """Where a job's run directory is, as a word for the head's shell, and what is wanted of it."""
    from aclcmp.orchestrator.submit.client import FETCH, RUN_DIR

    facts = client.state(job_id).metadata
    if RUN_DIR not in facts:
        raise UsageError(f"{job_id} was not submitted by aclcmp: where its run directory is, is not known")
    wanted = facts.get(FETCH)
    return facts[RUN_DIR], next((each for each in Fetch if each.value == wanted), Fetch.REPORT)


def _resolved_address(cluster: ClusterFile, wishes: Wishes, *, asking: bool = False) -> str | None:
    if wishes.address is not None:
        return addresses.checked(wishes.address)
    if cluster.address is None and cluster.shape is Shape.LAUNCHER and (asking or not (wishes.dry_run or wishes.up)):
        from aclcmp.orchestrator.submit.ray_up import head_address

        return head_address(cluster)
    return cluster.address if cluster.address is None else addresses.checked(cluster.address)


def _render(cluster: ClusterFile, talk: Talk) -> int:
    from aclcmp.orchestrator.submit.kuberay.manifest import render

    if cluster.shape is not Shape.KUBERAY:
        raise UsageError(f"--render is for KubeRay manifests (`apiVersion: ray.io/v1`); {cluster.path} is none")
    sys.stdout.write(render(cluster))
    return int(ExitCode.MATCH)
