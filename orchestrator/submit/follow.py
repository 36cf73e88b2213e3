"""A job's log goes to the terminal while it runs; out comes how it ended, or that the user left it or stopped it."""

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
    """What a user wants at Ctrl-C."""

    STOP = "stop"
    DETACH = "detach"
    GO_ON = "go on"


class Tail:
    """A thread that follows a log and puts its pieces into a queue. A lost connection is made again, from there on."""

    def __init__(self, client: JobClient, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._pieces: queue.Queue[str | None] = queue.Queue(64)  # bounded: who reads slowly slows the server
        self._shown = 0
        self._left = threading.Event()
        self._answers = True
        self.trouble = ""
        """Why nothing comes at the moment, or at all."""
        threading.Thread(target=self._run, name="job-log", daemon=True).start()

    def get(self, timeout: float) -> str | None:
        """The next piece, "" if there is none yet, None at the end."""
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
            except Exception as error:  # whatever it is, it is told, and the job's state counts
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
        """Follow the log from its beginning, but give only what was not given yet."""
        seen = 0
        async for piece in self._client.tail(self._job_id):
            self.trouble = ""
            seen += len(piece)
            new = piece[-(seen - self._shown) :] if seen > self._shown else ""
            if new and not self._put(new):
                return
            self._shown = max(self._shown, seen)

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
    told = ""
    try:
        while True:
            try:
                piece = tail.get(_LOOK)
                if tail.trouble != told:
                    told = tail.trouble
                    say(f"The log stands still ({told}); trying again" if told else "The log goes on")
                if piece is None:
                    return _ended(client, job_id, tail)
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


def _ended(client: JobClient, job_id: str, tail: Tail) -> JobState:
    try:
        state = client.state(job_id)
    except AclcmpError as error:
        raise LaunchError(f"the job server is lost ({error}); later: aclcmp attach {job_id}") from None
    if not state.over:
        raise LaunchError(
            f"the log of {job_id} cannot be followed ({tail.trouble}); it runs on: aclcmp attach {job_id}"
        )
    return state
