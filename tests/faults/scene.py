"""A run over real hosts while something happens to them: what the user reads and when, and what is left behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.netns import Host, hosts, ray_on
from tests.processes import PATIENCE, command_of, descendants, kill, living
from tests.recorded import read_report

SCRIPT = """
import os, signal, sys, time
import numpy as np
from aclcmp import set_label

mode, steps, pause, rows = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
random = np.random.default_rng(0)
for step in range(steps):
    whole = random.standard_normal((rows, 16 * world), np.float32)
    set_label("golden", f"layers.{step}.mlp", whole)
    set_label("actual", f"layers.{step}.mlp", np.split(whole, world, axis=1)[rank].copy())
    print("labelled", step, flush=True)
    if mode == "stuck" and step == 3:
        import torch.distributed as dist
        dist.init_process_group("gloo")
        if rank:  # the others wait in the collective for rank 0, which does not come
            dist.barrier()
        print("stuck", flush=True)
        time.sleep(600)
    time.sleep(pause)
"""
"""Labels a layer on both sides, says so, waits, goes on."""

LONG = ("60", "1", "48")
"""Steps, seconds between them, and rows: a run that does not end while something happens to it."""


@dataclass
class Scene:
    """The hosts, and the command that runs on the first of them."""

    hosts: Sequence[Host]
    address: str
    process: subprocess.Popen[str] | None = None
    output: str = ""
    lines: list[tuple[float, str]] = field(default_factory=list)
    begun: float = 0.0
    """Time of the fault."""

    def write_script(self) -> None:
        """Put the script where the command runs, on every host."""
        for host in self.hosts:
            (host.files / "model.py").write_text(SCRIPT)

    def start(self, output: str, *script: str, options: Sequence[str] = (), ranks: int = 4) -> None:
        """Start the command, its ranks spread over all hosts; the script is `model.py` with these arguments."""
        self.output, self.lines = output, []
        run = f"{sys.executable} model.py {' '.join(script)}"
        spread: tuple[str, ...] = ("--ranks", str(ranks), "--nodes", str(len(self.hosts)), "--address", self.address)
        spread += ("--device", "npu")  # each run needs them all: none may be left occupied by the last one
        arguments = ("-m", "aclcmp", "--exec", run, *spread, "--output", output, *options)
        self._launch(sys.executable, *arguments)

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run aclcmp with these arguments on the first host to its end; return exit code and what it printed."""
        done = self.hosts[0].run(sys.executable, "-m", "aclcmp", *arguments)
        return done.code, done.out + done.err

    def _launch(self, *arguments: str) -> None:
        host = self.hosts[0]
        self.process = process = subprocess.Popen(
            host.command(*arguments), env=host.environ, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

        def read() -> None:
            assert process.stdout is not None
            with process.stdout:
                self.lines += ((time.monotonic(), line.rstrip("\n")) for line in process.stdout)

        self._reader = threading.Thread(target=read, daemon=True)
        self._reader.start()

    def happen(self, what: Callable[[], object]) -> None:
        """Let a fault happen, and count seconds from now on."""
        self.begun = time.monotonic()
        what()

    def wait_for_line(self, pattern: str) -> float:
        """Wait until a line with this pattern is printed; return how many seconds after the fault it came."""

        def when() -> float | None:
            return next((when for when, line in list(self.lines) if re.search(pattern, line)), None)

        found = self.until(when, self._over)
        assert found is not None, f"never said {pattern!r}:\n{self.printed}"
        return found - self.begun

    def wait_for_end(self) -> tuple[int, float]:
        """Wait for the command's end; return its exit code, and how many seconds after the fault it came."""
        assert self.process is not None
        code = self.process.wait(PATIENCE)
        when = time.monotonic()
        self._reader.join(PATIENCE)
        return code, when - self.begun

    def wait_until_empty(self, *where: Host) -> float:
        """Wait until no process of a rank is left on these hosts; return how many seconds after the fault that was."""
        assert self.until(lambda: not any(map(self.ranks_on, where)) or None), [self.ranks_on(host) for host in where]
        return time.monotonic() - self.begun

    def ranks_on(self, host: Host) -> list[psutil.Process]:
        """Return the processes of this run's ranks on a host, and their guards."""
        shards = f"{host.work}/{self.output}/"
        return living(lambda each: each.environ().get("ACLCMP_SHARD_DIR", "").startswith(shards), host.processes())

    def ray_on(self, host: Host, name: str) -> list[psutil.Process]:
        """Return the processes of Ray on a host whose command line or title contains `name`; "": all."""

        def is_named(process: psutil.Process) -> bool:
            line = command_of(process)
            return name in line and ("ray::" in line or "/ray/" in line)

        return living(is_named, host.processes())

    def kill_driver(self) -> None:
        """Kill the command itself, not the process that holds its namespaces."""
        assert self.process is not None
        kill(descendants(self.process.pid))
        self.process.wait(PATIENCE)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        assert self.process is not None
        kill(psutil.Process(self.process.pid).children(), signal.SIGINT)

    @property
    def printed(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def compared_layers(self) -> dict[int, int]:
        """Count the layers that the report has compared on each rank."""
        counts: Counter[int] = Counter()
        for label in self.report()["labels"]:
            counts.update(int(rank) for rank, found in label["ranks"].items() if found["status"] == "match")
        return counts

    def labelled_layers(self) -> dict[int, int]:
        """Count the layers that each rank said it had labelled, in its log on its own host."""
        counts = {}
        for host in self.hosts:
            for log in (host.files / self.output / "logs").glob("rank*.log"):
                counts[int(log.stem[4:])] = log.read_text(errors="replace").count("labelled ")
        return counts

    def report(self) -> dict[str, Any]:
        return read_report(self.hosts[0].files / self.output)

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.hosts[0].files / self.output / "run.json").read_text()))

    @staticmethod
    def until(found: Callable[[], Any], over: Callable[[], bool] = lambda: False) -> Any:
        """Wait until something is found, `over` is true, or PATIENCE has passed; return what is found, or None."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            last = over()
            if (result := found()) is not None or last:
                return result
            time.sleep(0.1)
        return None

    def _over(self) -> bool:
        return not self._reader.is_alive()


@contextmanager
def scene(folder: Path, names: Sequence[str] = ("acl-a", "acl-b")) -> Iterator[Scene]:
    """Make real hosts with a Ray over them and the script on each; all of it is gone afterwards."""
    with hosts(folder, names) as made, ray_on(made, npus=2) as address:
        found = Scene(made, address)
        found.write_script()
        try:
            yield found
        finally:
            if found.process is not None and found.process.poll() is None:
                found.kill_driver()
