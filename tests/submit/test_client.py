"""What a job server, or what is none, may answer: each becomes one line without secrets."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.errors import LaunchError, UsageError
from aclcmp.orchestrator.submit.client import JobClient
from aclcmp.orchestrator.submit.token import TokenFrom

pytest.importorskip("aiohttp")
requests = pytest.importorskip("requests")

URL = "http://h.invalid:8265"


class Odd:
    """In place of Ray's client: whatever it is asked, it raises the same."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def get_job_info(self, job_id: str) -> Any:
        raise self.error

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "a line\n"
        raise self.error


def client(error: Exception) -> JobClient:
    return JobClient(URL, Odd(error), TokenFrom.NOWHERE)


def _bad_gateway() -> Exception:
    response = requests.Response()
    response.status_code = 502
    error: Exception = requests.exceptions.HTTPError("502", response=response)
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (KeyError("ray_version"), UsageError, f"what answers at {URL} is no job server of Ray"),
        (TypeError("argument after ** must be a mapping"), UsageError, "is no job server of Ray"),
        (_bad_gateway(), LaunchError, "http 502"),
        (requests.exceptions.ConnectionError("x"), LaunchError, "ConnectionError"),
        (RuntimeError("status code 404"), UsageError, "no job j at"),
        (RuntimeError("status code 500: \x1b]0;x\x07boom\nmore"), UsageError, "500: \\x1b]0;x\\x07boom more"),
    ],
)
def test_each_answer_is_one_line(error: Exception, kind: type[AclcmpError], words: str) -> None:
    with pytest.raises(kind) as raised:
        client(error).state("j")
    assert words in str(raised.value) and str(raised.value).isprintable()


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hush@proxy:3128")
    with pytest.raises(LaunchError, match="through the proxy proxy:3128") as raised:
        client(requests.exceptions.ConnectionError("x")).state("j")
    assert "hush" not in str(raised.value)


def test_a_log_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp's errors are no OSErrors, all of them."""
    import aiohttp

    async def follow() -> list[str]:
        return [piece async for piece in client(aiohttp.ClientPayloadError("x")).tail("j")]

    with pytest.raises(RuntimeError, match="ClientPayloadError"):
        asyncio.run(follow())
