"""A user's laptop for tests: its own home and state, and the command line in a process of its own or in a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.conftest import Done
from tests.processes import PATIENCE, as_in_a_terminal

MODEL = """
import os, sys, time
import numpy as np
from aclcmp import set_label, set_task_id

rank, mode = int(os.environ["RANK"]), sys.argv[1]
print(mode, "here", len(os.environ.get("MY_TOKEN", "")), flush=True)
set_task_id()
for layer in range(3):
    whole = np.random.default_rng(layer).standard_normal((64, 64 * 40)).astype(np.float32)
    set_label("golden", f"layers.{layer}.act", whole)
    if mode == "fault" and layer == 1 and rank == 1:
        whole = whole[::-1].copy()
    if mode == "crash" and rank == 1:
        raise SystemExit(7)
    set_label("actual", f"layers.{layer}.act", whole)
for tick in range(600 if mode == "hang" else 0):
    print("tick", tick, flush=True)
    time.sleep(0.5)
"""


@dataclass(frozen=True)
class Laptop:
    """The machine on which a user types commands."""

    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    enter: Callable[..., list[str]] = field(default=lambda *words: [str(word) for word in words], repr=False)
    """From a command to one that runs it where the laptop is, such as `Host.command` of tests/netns.py."""

    @staticmethod
    def at(folder: Path, environ: Mapping[str, str], url: str, **job: str) -> Laptop:
        """Make a laptop with a script and a cluster file."""
        (folder / "code").mkdir(parents=True)
        (folder / "code/model.py").write_text(MODEL)
        keys = {"exec": "python model.py match", "ranks": "2", "device": "cpu", "working_dir": "code", **job}
        lines = "".join(f"  {key}: {value}\n" for key, value in keys.items())
        (folder / "job.yaml").write_text(f"address: {url}\naclcmp:\n{lines}  env: {{MY_TOKEN: hushhush}}\n")
        return Laptop(folder, {**environ, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")})

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line that runs `aclcmp ARGUMENTS`."""
        return self.enter(sys.executable, "-m", "aclcmp", *arguments)

    def run(self, *arguments: str | Path, timeout: float = PATIENCE, **environ: str | None) -> Done:
        """Run a command to its end, with some variables changed or (None) removed."""
        merged = {**self.environ, **{name: value for name, value in environ.items() if value is not None}}
        merged = {name: value for name, value in merged.items() if environ.get(name, "") is not None}
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=merged, capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def terminal(self, *arguments: str | Path) -> Iterator[Terminal]:
        """Run a command in a terminal."""
        pid, master = pty.fork()
        if pid == 0:
            try:
                as_in_a_terminal()
                os.chdir(self.folder)
                command = self.command(*arguments)
                os.execvpe(command[0], command, dict(self.environ))
            finally:
                os._exit(127)
        terminal = Terminal(pid, master)
        try:
            yield terminal
        finally:
            terminal.end()


@dataclass
class Terminal:
    """A command in a terminal, with its keyboard and its screen."""

    pid: int
    master: int
    text: str = ""
    code: int | None = None

    def wait_for(self, words: str, timeout: float = PATIENCE) -> None:
        """Read the screen until these words appear on it, after the last call's."""
        until = time.monotonic() + timeout
        shown = ""
        while not re.search(words, shown):
            assert time.monotonic() < until, f"{words!r} did not come: {self.text[-3000:]}"
            piece = self._read(1.0)
            assert piece is not None, f"it ended before {words!r} came: {self.text[-3000:]}"
            shown += piece

    def type(self, keys: str) -> None:
        """Type a text; "\\x03" is Ctrl-C."""
        os.write(self.master, keys.encode())

    def exit_code(self, timeout: float = PATIENCE) -> int:
        """Wait for the end."""
        until = time.monotonic() + timeout
        while self._read(1.0) is not None:
            assert time.monotonic() < until, f"it does not end: {self.text[-3000:]}"
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def end(self) -> None:
        """Kill the processes that are left."""
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)

    def _read(self, seconds: float) -> str | None:
        if not select.select([self.master], [], [], seconds)[0]:
            return ""
        try:
            piece = os.read(self.master, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            return None
        self.text += piece
        return piece or None
