"""Maker of run directories with real ranks, as the launcher makes them, without its Ray."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aclcmp.orchestrator.cluster.ports import free_port
from aclcmp.orchestrator.run.directory import RunDir
from tests.recorded import record_run

HERE = Path(__file__).parent
RUN_ID = "20260101-000000"


@dataclass(frozen=True, slots=True)
class Ranks:
    """A process that forks ranks."""

    requests: IO[str]
    answers: IO[str]

    def run(self, folder: Path, script: str, *arguments: str, ranks: int = 1, strict: bool = True) -> Path:
        """Make the run directory `folder` of a script in this folder on some ranks; return it."""
        run = RunDir.create(folder)
        port = free_port()
        environment = [rank_environment(run, rank, ranks, port, strict=strict) for rank in range(ranks)]
        logs = [str(run.log(rank)) for rank in range(ranks)]
        wanted = {"script": str(HERE / script), "arguments": arguments, "environment": environment, "logs": logs}
        self.requests.write(json.dumps(wanted) + "\n")
        self.requests.flush()
        answer = self.answers.readline()
        assert answer, "the process that forks ranks has died"
        codes = json.loads(answer)
        output = "".join(f"rank {rank}:\n{Path(log).read_text()}" for rank, log in enumerate(logs))
        assert codes == [0] * ranks, f"{script} {arguments}: {codes}\n{output}"
        record_run(run, script, ranks, RUN_ID)
        return folder


Made = Callable[..., Path]
"""(options, number of ranks = 1) -> the run directory."""


def run_maker(ranks: Ranks, folder: Path, script: str) -> Made:
    """Return a function that runs a script with options on some ranks, below `folder`, each combination once."""
    names = itertools.count()
    runs: dict[tuple[str, int], Path] = {}

    def make(options: str, count: int = 1) -> Path:
        if (options, count) not in runs:
            made_in = folder / str(next(names))
            runs[options, count] = ranks.run(made_in, script, *options.split(), ranks=count)
        return runs[options, count]

    return make


def rank_environment(run: RunDir, rank: int, ranks: int, port: int, *, strict: bool) -> dict[str, str]:
    """Return torchrun's variables and the launcher's own."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACLCMP_RUN_ID": RUN_ID,
        "ACLCMP_SHARD_DIR": str(run.shards),
        "ACLCMP_STRICT": str(int(strict)),
    }


@contextmanager
def forking() -> Iterator[Ranks]:
    """Start the process that forks ranks, and end it."""
    command = [sys.executable, "-W", "error", str(HERE / "fork_ranks.py")]
    mine = ("ACLCMP_", "ASCEND_", "CUDA_", "AIT_", "LOCAL_", "OMPI_")  # a session begins before tests wipe these
    environ = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    environ["PYTHONPATH"] = str(HERE.parents[1])
    with subprocess.Popen(command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            yield Ranks(process.stdin, process.stdout)
        finally:
            process.kill()
