"""Show a job's log while it runs, until it ends or the user leaves or stops it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from enum import Enum

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.errors import LaunchError
from aclcmp.orchestrator.submit.client import JobClient, JobState

_LOOK = 0.2
_AGAIN = 2.0
_TRIES = 3
_PATIENCE = 120.0
"""Seconds without an answer of the job server after which following is given up; the job may run on."""


class Choice(Enum):
    """Answers of a user at Ctrl-C."""

    STOP = "stop"
    DETACH = "detach"
    GO_ON = "go on"


class Tail:
    """A thread that puts the pieces of a log into a queue, and connects again where the connection is lost."""

    def __init__(self, client: JobClient, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._pieces: queue.Queue[str | None] = queue.Queue(64)  # bounded: a slow reader slows the server down
        self._shown = 0
        self._left = threading.Event()
        self._answers = True
        self.trouble = ""
        """The reason why nothing comes at the moment, or at all."""
        threading.Thread(target=self._run, name="job-log", daemon=True).start()

    def get(self, timeout: float) -> str | None:
        """Return the next piece, "" if there is none yet, None at the end."""
        try:
            return self._pieces.get(timeout=timeout)
        except queue.Empty:
            return ""

    def leave(self) -> None:
        """Follow no longer."""
        self._left.set()

    def _run(self) -> None:
        since, tries = time.monotonic(), 0
        while not self._left.is_set():
            try:
                asyncio.run(self._follow())
                if self._client.state(self._job_id).over:
                    break
                since = time.monotonic()
            except Exception as error:  # whatever it is, it is shown, and the job's state decides
                self.trouble = " ".join(str(error).split()) or type(error).__name__
                tries += self._is_over()
                if tries == _TRIES:  # what is left of its log cannot be had
                    break
                if self._answers:
                    since = time.monotonic()
                elif time.monotonic() - since > _PATIENCE:
                    break
            self._left.wait(_AGAIN)
        self._put(None)

    def _is_over(self) -> bool:
        """Ask whether the job is over, where its log cannot be had."""
        try:
            over = self._client.state(self._job_id).over
            self._answers = True
            return over
        except AclcmpError:
            self._answers = False
            return False

    async def _follow(self) -> None:
        """Follow the log from its beginning, but put only the part into the queue that was not there yet."""
        received = 0
        async for piece in self._client.tail(self._job_id):
            self.trouble = ""
            received += len(piece)
            new = piece[-(received - self._shown) :] if received > self._shown else ""
            if new and not self._put(new):
                return
            self._shown = max(self._shown, received)

    def _put(self, piece: str | None) -> bool:
        while not self._left.is_set():
            try:
                self._pieces.put(piece, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False


def follow(
    client: JobClient,
    job_id: str,
    show: Callable[[str], None],
    say: Callable[[str], None],
    ask: Callable[[], Choice],
) -> JobState | Choice:
    """Show a job's log to its end. At Ctrl-C `ask` is called; STOP and DETACH are returned at once.

    Raises LaunchError when the job server is lost.
    """
    tail = Tail(client, job_id)
    trouble = ""
    try:
        while True:
            try:
                piece = tail.get(_LOOK)
                if tail.trouble != trouble:
                    trouble = tail.trouble
                    say(f"The log stands still ({trouble}); trying again" if trouble else "The log goes on")
                if piece is None:
                    return _final_state(client, job_id, tail)
                if piece:
                    show(piece)
            except KeyboardInterrupt:
                if (choice := ask()) is not Choice.GO_ON:
                    return choice
    finally:
        tail.leave()


def wait(client: JobClient, job_id: str, seconds: float) -> JobState:
    """Wait until a job is over, or for so long; return its state then."""
    until = time.monotonic() + seconds
    while True:
        state = client.state(job_id)
        if state.over or time.monotonic() > until:
            return state
        time.sleep(_LOOK)


def _final_state(client: JobClient, job_id: str, tail: Tail) -> JobState:
    try:
        state = client.state(job_id)
    except AclcmpError as error:
        raise LaunchError(f"the job server is lost ({error}); later: aclcmp attach {job_id}") from None
    if not state.over:
        raise LaunchError(
            f"the log of {job_id} cannot be followed ({tail.trouble}); it runs on: aclcmp attach {job_id}"
        )
    return state
