"""The job server of a cluster: submit, look, stop, follow a log. Ray's client is imported when it connects."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeVar

from pydantic import ValidationError

from aclcmp.orchestrator.cluster.ray_start import STOP_PATIENCE
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.errors import LaunchError, UsageError
from aclcmp.orchestrator.submit import address as addresses
from aclcmp.orchestrator.submit.submission import Submission
from aclcmp.orchestrator.submit.token import TokenFrom, prepare_token, refusal

RUN_DIR = "aclcmp_run_dir"
"""Name in a job's metadata of its run directory, as a word for the head's shell."""
ROLE = "aclcmp_role"
"""Name in a job's metadata of its purpose: "run" or "fetch"."""
FETCH = "aclcmp_fetch"
"""Name in a job's metadata of how much is to be brought to the host that submitted it."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as the job server knows it."""

    job_id: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    exit_code: int | None
    message: str
    started: float
    """Seconds since 1970; 0 if unknown."""
    ended: float
    """0 while it runs."""
    entrypoint: str
    metadata: Mapping[str, str]

    @property
    def over(self) -> bool:
        """True when it has ended, and so changes no more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class JobClient:
    """A job server that was reached with a token it accepts."""

    def __init__(self, address: str, client: Any, source: TokenFrom) -> None:
        self.address = address
        self._client = client
        self._source = source

    @classmethod
    def connect(cls, address: str | None) -> JobClient:
        """Connect to the URL of a job server. Raises UsageError when it does not answer, or wants (another) token."""
        url = addresses.check_address(address)
        if find_spec("aiohttp") is None or find_spec("requests") is None:
            raise UsageError("Ray's job client is not installed here: pip install 'aclcmp[submit]'")
        source = prepare_token(os.environ)
        addresses.check_answers(url)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's own list would be warned about at every upload; what is on it is excluded here already.
        os.environ.setdefault("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "")
        hidden = addresses.without_ray_addresses()
        try:
            import ray
            from ray.job_submission import JobSubmissionClient

            ray._raylet.Config.initialize("")  # the mode was read when Ray was imported, which may have been earlier
            logging.getLogger("ray").setLevel(logging.WARNING)
            for name in ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
                logging.getLogger(name).setLevel(logging.WARNING)
            client = _ask_server(url, source, lambda: JobSubmissionClient(url))
        finally:
            os.environ.update(hidden)
        return cls(url, client, source)

    def submit(self, job: Submission, role: str = "run", what: Fetch = Fetch.REPORT) -> str:
        """Submit a job, with its working directory; return its id. Raises UsageError as the server says."""
        variables = {**(STOP_PATIENCE if role == "run" else {}), **job.variables}
        runtime: dict[str, Any] = {"env_vars": variables} if variables else {}
        if job.working_dir is not None:
            runtime |= {"working_dir": str(job.working_dir), "excludes": list(job.excludes)}
        return self._ask(
            lambda: str(
                self._client.submit_job(
                    entrypoint=job.entrypoint,
                    submission_id=job.job_id,
                    runtime_env=runtime,
                    metadata={ROLE: role, RUN_DIR: job.run_dir, FETCH: what.value},
                )
            )
        )

    def state(self, job_id: str) -> JobState:
        """Look at a job. Raises UsageError for one that the server does not know."""
        return _job_state(self._ask(lambda: self._client.get_job_info(job_id), job_id))

    def jobs(self) -> list[JobState]:
        """Return the jobs that aclcmp submitted here, the newest first, without those that only fetch files."""
        found = [_job_state(each) for each in self._ask(self._client.list_jobs) if each.submission_id]
        ours = [each for each in found if each.metadata.get(ROLE) == "run"]
        return sorted(ours, key=lambda each: -each.started)

    def stop(self, job_id: str) -> None:
        """Ask for a job's end; return at once."""
        self._ask(lambda: self._client.stop_job(job_id), job_id)

    async def tail(self, job_id: str) -> AsyncIterator[str]:
        """Follow a job's log from its beginning; pieces may begin and end anywhere. Raises RuntimeError, OSError."""
        from aiohttp import ClientError

        try:
            async for piece in self._client.tail_job_logs(job_id):
                yield piece
        except ClientError as error:  # not every one is an OSError
            raise RuntimeError(f"the log cannot be had: {type(error).__name__}") from None

    def _ask(self, question: Callable[[], Result], job_id: str = "") -> Result:
        return _ask_server(self.address, self._source, question, job_id)


def _ask_server(url: str, source: TokenFrom, question: Callable[[], Result], job_id: str = "") -> Result:
    """Ask Ray's client. Raises UsageError or LaunchError of one line for everything that goes wrong there."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        return question()
    except AuthenticationError as error:
        raise UsageError(refusal(403 if "authentication failed" in str(error).lower() else 401, source)) from None
    except (ConnectionError, requests.exceptions.RequestException) as error:
        proxy = addresses.proxy_of(url)
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = f"through the proxy {proxy}; set no_proxy" if proxy else type(error).__name__
        raise LaunchError(addresses.no_answer(url, why if status is None else f"http {status}")) from None
    except (KeyError, TypeError, AttributeError, ValidationError):
        raise UsageError(f"what answers at {url} is no job server of Ray, or of a Ray too old or too new") from None
    except (RuntimeError, ValueError) as error:
        text = visible(" ".join(str(error).split()))
        if job_id and "status code 404" in text:
            raise UsageError(f"no job {job_id} at {url}; `aclcmp jobs --address {url}` lists those there") from None
        if "exceeds the maximum size" in text:
            size = text[text.find("(") + 1 : text.find(")")]
            raise UsageError(
                f"the working_dir is too large to upload ({size}); exclude what is not needed, by `excludes:` or a "
                ".gitignore, and keep models on the hosts"
            ) from None
        raise UsageError(f"the job server at {url} refused: {text[:500]}") from None


def _job_state(info: Any) -> JobState:
    return JobState(
        job_id=info.submission_id or info.job_id or "",
        status=str(getattr(info.status, "value", info.status)),
        exit_code=info.driver_exit_code,
        message=info.message or "",
        started=(info.start_time or 0) / 1000,
        ended=(info.end_time or 0) / 1000,
        entrypoint=info.entrypoint,
        metadata=dict(info.metadata or {}),
    )
