"""One Ray for the tests of a module, and a watcher of what they launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.core.job import Device, Job, Placement
from aclcmp.orchestrator.core.run_record import RankState, RunRecord
from aclcmp.orchestrator.launch.launcher import launch
from aclcmp.orchestrator.run.directory import RunDir


class Notes:
    """A watcher that keeps all that it is told."""

    def __init__(self) -> None:
        self.placements: list[Placement] = []
        self.lines: list[tuple[int, str]] = []
        self.sentences: tuple[str, ...] = ()
        self.said: list[str] = []
        self.ends: dict[int, tuple[RankState, int | None]] = {}

    def on_dump_setup(self, sentences: Sequence[str]) -> None:
        self.sentences = tuple(sentences)

    def on_start(self, ranks: Sequence[Placement]) -> None:
        self.placements = list(ranks)

    def on_line(self, rank: int, text: str) -> None:
        self.lines.append((rank, text))

    def say(self, text: str) -> None:
        self.said.append(text)

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None:
        assert rank not in self.ends
        self.ends[rank] = (state, exit_code)

    def of(self, rank: int) -> list[str]:
        """Return the lines of one rank."""
        return [text for each, text in self.lines if each == rank]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Open a local Ray that claims eight NPUs."""
    with Cluster.open(simulate={"NPU": 8}) as opened:
        yield opened


@pytest.fixture
def run_job(cluster: Cluster, tmp_path: Path) -> Callable[..., tuple[RunRecord, Notes, RunDir]]:
    """Launch a command (`options` as of Job) and return its record, what the watcher saw, and the run directory."""

    def run(*command: str, ranks: int, device: str = "cpu", **options: Any) -> tuple[RunRecord, Notes, RunDir]:
        notes, folder = Notes(), RunDir.create(tmp_path / "run")
        job = Job(command, tmp_path, ranks=ranks, device=Device(device), **options)
        return launch(job, cluster, folder, notes), notes, folder

    return run


def without_ray_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Set the environment of a user who has none of Ray's settings."""
    return {name: value for name, value in environ.items() if not name.startswith("RAY_")}
