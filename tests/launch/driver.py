"""A small program that launches a job, for tests that kill it: python driver.py RUN_DIR RANKS COMMAND..."""

import sys
from collections.abc import Sequence
from pathlib import Path

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.core.job import Job, Placement
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.launch.launcher import launch
from aclcmp.orchestrator.run.directory import RunDir


class Printer:
    """A watcher that prints what happens."""

    def on_dump_setup(self, sentences: Sequence[str]) -> None:
        print(*sentences, sep="\n", flush=True)

    def on_start(self, ranks: Sequence[Placement]) -> None:
        print("started", flush=True)

    def on_line(self, rank: int, text: str) -> None:
        print(f"[rank{rank}] {text}", flush=True)

    def say(self, text: str) -> None:
        print(text, flush=True)

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None:
        print("finished", rank, state.value, exit_code, flush=True)


if __name__ == "__main__":
    with Cluster.open() as cluster:
        print("opened", flush=True)
        folder, ranks, *command = sys.argv[1:]
        job = Job(tuple(command), Path.cwd(), ranks=int(ranks))
        launch(job, cluster, RunDir.create(Path(folder)), Printer())
    print("closed", flush=True)
