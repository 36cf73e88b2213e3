"""Bring the files of a job's run directory here, by short jobs on its cluster that write them into their logs."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable
from pathlib import Path

from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.errors import LaunchError, UsageError
from aclcmp.orchestrator.submit.client import JobClient
from aclcmp.orchestrator.submit.submission import Submission, new_job_id, pack_request
from aclcmp.orchestrator.transfer.log_receive import LogReceiver, ReceivedFiles, present_sizes
from aclcmp.orchestrator.transfer.log_send import FileRequest

_BATCH = 256 << 20
"""Bytes of one job: its log, a third larger, is on the head's disk until they are here."""
_LONGEST = 100_000
"""Characters of a request: a shell takes 131,071 in one word."""
_TRIES = 3
"""Jobs in a row that bring nothing, after which fetching is given up."""


def fetch_files(
    client: JobClient,
    run_dir: str,
    what: Fetch,
    target: Path,
    say: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> ReceivedFiles:
    """Bring a run directory (a word for the head's shell) into the folder `target`; return what is here at the end.

    What is here already is checked, not sent again. A Ctrl-C leaves what came, for the next time. Raises LaunchError
    when it cannot be completed, with what to do.
    """
    target.mkdir(parents=True, exist_ok=True)
    tries = 0
    while True:
        found = _run_fetch_job(client, run_dir, FileRequest(what, present_sizes(target), _BATCH), target, progress)
        for line in [*found.wrong, *([found.error] if found.error else [])]:
            say(line)
        if found.done and not found.wrong and not found.more:
            if found.error:
                raise LaunchError(found.error)
            return found
        refused = [line for line in found.wrong if line.startswith("refused: ")]
        if refused:
            raise LaunchError(f"{len(refused)} files were refused; the first: {refused[0]}")
        tries = 0 if found.bytes else tries + 1
        if tries == _TRIES:
            raise LaunchError(
                f"not everything could be fetched; what came is in {target}, and the next try goes on there"
            )


def _run_fetch_job(
    client: JobClient, run_dir: str, request: FileRequest, target: Path, progress: Callable[[str, int, int], None]
) -> ReceivedFiles:
    word = pack_request(request.to_json())
    if len(word) > _LONGEST:
        raise UsageError(
            f"{len(request.have):,} files are too many to fetch this way; copy the run directory, e.g. by rsync"
        )
    job = Submission(new_job_id(), f"aclcmp send-files {run_dir} {shlex.quote(word)}", run_dir, {}, None, ())
    receiver = LogReceiver(target, progress)
    client.submit(job, role="fetch")
    try:
        other = asyncio.run(_receive_files(client, job.job_id, receiver))
    finally:
        with contextlib.suppress(LaunchError, UsageError):  # it ends by itself after a while
            client.stop(job.job_id)
        receiver.close()
    if not receiver.result.done:
        state = client.state(job.job_id)
        if state.exit_code == 127:
            raise LaunchError(
                "the head node has no aclcmp on the PATH with which its Ray was started: install it there"
            )
        if not receiver.result.bytes:
            receiver.result.error = other or state.message or f"the job that sends files is {state.status}"
    return receiver.result


async def _receive_files(client: JobClient, job_id: str, receiver: LogReceiver) -> str:
    """Follow the log until everything is here or the log ends; return the last line of it that is no file's."""
    last = ""
    try:
        async for piece in client.tail(job_id):
            if receiver.feed(piece):
                break
            last = next((line for line in reversed(piece.splitlines()) if line and not line.startswith("@")), last)
    except (RuntimeError, OSError) as error:
        last = str(error)
    return last
