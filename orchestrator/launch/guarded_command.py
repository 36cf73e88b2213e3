"""One command under a guard: start it, log its output, and keep its newest lines and its end until they are taken."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from aclcmp.orchestrator.cluster.ray_start import set_by_ray
from aclcmp.orchestrator.launch import guard
from aclcmp.orchestrator.launch.dump_setup import DumpOrder, DumpSetup, prepare

MAX_LINE = 8 << 10
"""Bytes; a longer line is shown in pieces."""
MAX_WAITING = 256 << 10
"""Most bytes that wait to be taken; when there are more, the oldest lines are dropped."""


@dataclass(frozen=True, slots=True)
class Start:
    """Order to run one command."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    inherit: bool
    """Start from the host's own environment (PATH, LD_LIBRARY_PATH, ...), which `environment` overrides."""
    cwd: Path
    log: Path
    shards: Path
    dump: DumpOrder | None = None
    """How to prepare an accelerated library's dumps; None without them."""


@dataclass(frozen=True, slots=True)
class Exit:
    """End of the command."""

    code: int
    """128 + n when signal n ended it."""
    time: float
    """`time.monotonic()` of its host, which has no meaning on other hosts: their clocks differ."""
    stopped: bool
    """True if `stop` was called before it ended."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Output and end of a command since the last call."""

    lines: tuple[str, ...]
    hidden: int
    """Number of lines before `lines` that are only in the log."""
    exit: Exit | None
    """Set from the moment when the command ended."""
    done: bool
    """True when all its processes are gone and all lines were passed on."""
    ago: float = 0.0
    """Seconds since the command ended, when there is an `exit`."""


class GuardedCommand:
    """One command and all its processes, which end with it or when this process does."""

    def __init__(self, order: Start, changed: threading.Condition) -> None:
        """Start the command; `changed` is notified when there is news of it.

        Raises FileNotFoundError when the working directory is not there on this host.
        """
        self._changed = changed
        self._logging = True
        self._lines = LiveLines()
        self._exit: Exit | None = None
        self._exit_reported = False
        self._stopped = False
        self._done_reported = False
        self.is_done = False
        """True when all its processes are gone and all its output was read."""
        if not order.cwd.is_dir():
            raise FileNotFoundError(f"the working directory {order.cwd} does not exist on host {socket.gethostname()}")
        order.log.parent.mkdir(parents=True, exist_ok=True)
        order.shards.mkdir(parents=True, exist_ok=True)
        with ExitStack() as cleanup:  # if the command cannot be started
            log = cleanup.enter_context(order.log.open("ab", buffering=0))
            environment = {**(own_environment() if order.inherit else {}), **order.environment}
            self.setup: DumpSetup | None = None if order.dump is None else prepare(order.dump, environment)
            """How its dumps were prepared; None without dumps."""
            if self.setup is not None:
                cleanup.callback(guard.forget, self.setup.map_file)
                environment |= guard_variables(self.setup)
            status, status_writer = os.pipe()
            cleanup.callback(os.close, status)
            try:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", guard.__file__, str(status_writer), *order.command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[status_writer],
                    cwd=order.cwd,
                    env=environment,
                )
            finally:
                os.close(status_writer)
            cleanup.pop_all()
        threading.Thread(target=self._read_output, args=(self._guard, status, log), daemon=True).start()

    @property
    def has_news(self) -> bool:
        """True if `take` would return something new. Ask with the condition held."""
        ended = self._exit is not None and not self._exit_reported
        return bool(self._lines) or ended or (self.is_done and not self._done_reported)

    def take(self) -> Batch:
        """Return and remove what came since the last call. Call it with the condition held."""
        self._done_reported, self._exit_reported = self.is_done, self._exit is not None
        lines, hidden = self._lines.take()
        ago = time.monotonic() - self._exit.time if self._exit else 0.0
        return Batch(lines, hidden, self._exit, self.is_done, ago)

    def stop(self) -> None:
        """End the command and all its processes: SIGTERM, two seconds, SIGKILL. Returns at once."""
        with self._changed:
            if not self._stopped:
                self._stopped = True
                assert self._guard.stdin is not None
                self._guard.stdin.close()

    def _read_output(self, process: subprocess.Popen[bytes], status: int, log: FileIO) -> None:
        """Read the command's output until its last process is gone. Body of a thread."""
        assert process.stdout is not None
        try:
            with selectors.DefaultSelector() as selector, process.stdout, os.fdopen(status, "rb", 0), log:
                selector.register(
                    process.stdout.fileno(), selectors.EVENT_READ, lambda chunk: self._take_output(chunk, log)
                )
                selector.register(status, selectors.EVENT_READ, lambda line: self._note_exit(int(line)))
                while selector.get_map():
                    for key, _ in selector.select():
                        if content := os.read(key.fd, 1 << 16):
                            key.data(content)
                        else:
                            selector.unregister(key.fd)
            code = process.wait()
            if self._exit is None:  # the guard itself was killed
                self._note_exit(128 - code if code < 0 else code)
        finally:
            guard.forget(self.setup.map_file if self.setup else "")  # the guard has done this, unless it was killed
            with self._changed:
                self._lines.finish()
                self.is_done = True
                self._changed.notify_all()

    def _take_output(self, content: bytes, log: FileIO) -> None:
        if self._logging:
            try:
                log.write(content)
            except OSError as error:  # a full disk must not stop the rank, which would block on its output
                content += f"\naclcmp: the log {log.name} ends here: {error.strerror}\n".encode()
                self._logging = False
        with self._changed:
            self._lines.feed(content)
            self._changed.notify_all()

    def _note_exit(self, code: int) -> None:
        with self._changed:
            self._exit = Exit(code, time.monotonic(), self._stopped)
            self._changed.notify_all()


def guard_variables(setup: DumpSetup) -> dict[str, str]:
    """Return the variables of a command's dumps in the form that its guard expects."""
    variables = {name: value for name, value in setup.variables.items() if name != "LD_PRELOAD"}
    return {**variables, guard.PRELOAD: setup.variables.get("LD_PRELOAD", ""), guard.REMOVE: setup.map_file}


def own_environment() -> dict[str, str]:
    """Return this host's environment without what Ray put into it for the actor."""
    return {name: value for name, value in os.environ.items() if not set_by_ray(name)}


class LiveLines:
    """Splits a byte stream into lines, with bounded memory however fast or strange the stream is."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._hidden = 0
        self._partial = b""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def feed(self, chunk: bytes) -> None:
        """Add a chunk of output, which may begin and end anywhere."""
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        for line in lines:
            self._add(line)
        if len(self._partial) > MAX_LINE:
            self._partial = self._partial.rpartition(b"\r")[2]  # a progress bar that never ends its line
        if len(self._partial) > MAX_LINE:
            self._add(self._partial)
            self._partial = b""

    def finish(self) -> None:
        """End the stream: a rest without newline becomes a line too."""
        if self._partial:
            self._add(self._partial)
            self._partial = b""

    def take(self) -> tuple[tuple[str, ...], int]:
        """Return and remove the waiting lines; also return how many lines before them were dropped."""
        lines = tuple(line.decode(errors="replace") for line in self._waiting)
        hidden, self._hidden, self._size = self._hidden, 0, 0
        self._waiting.clear()
        return lines, hidden

    def _add(self, line: bytes) -> None:
        line = line.rstrip(b"\r").rpartition(b"\r")[2]  # only what a terminal would show in the end
        for start in range(0, max(1, len(line)), MAX_LINE):
            piece = line[start : start + MAX_LINE]
            self._waiting.append(piece)
            self._size += len(piece) + 1
        while self._size > MAX_WAITING:
            self._size -= len(self._waiting.popleft()) + 1
            self._hidden += 1
