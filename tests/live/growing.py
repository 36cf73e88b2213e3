"""Shards that grow, and a follower of them in this process, as other hosts have one each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.orchestrator.compare.result_cache import ResultCache
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.live.interim_verdicts import InterimVerdicts
from aclcmp.orchestrator.live.journal_tail import NewRecords, read_new_records
from aclcmp.orchestrator.live.rank_progress import RankProgress
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.planner import plan_run
from tests.models.comparing import compare_pairs

Array = npt.NDArray[np.floating]


class Rank:
    """One process that labels, as a recorder does."""

    def __init__(self, folder: Path, rank: int, world: int, segment_bytes: int = 1 << 30, started: float = 1.0) -> None:
        header = ShardHeader("run", rank, world, rank, 0, "host", 1, started)
        self.writer = ShardWriter(folder, header, segment_bytes)
        self._seq = 0
        self._seen: dict[tuple[int, str, str], int] = {}

    def label(self, side: str, name: str, array: Array, task: int = 0) -> None:
        """Set one label; the same one again is the next occurrence."""
        key = task, name, side
        occurrence = self._seen[key] = self._seen.get(key, -1) + 1
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        facts = array.dtype.name, array.shape, "cpu"
        self.writer.add(LabelRecord(task, name, occurrence, side, self._seq, float(self._seq), "m.py:1", *facts), bits)
        self._seq += 1

    def label_dump(self, name: str, path: str) -> None:
        """Set a label that names a file of the library."""
        record = LabelRecord(0, name, 0, "acl", self._seq, float(self._seq), "m.py:1", tensor_path=path)
        self.writer.note(record)
        self._seq += 1


class Follower:
    """A follower of a folder of shards, step by step."""

    def __init__(self, folder: Path, world: int) -> None:
        self.folder, self.world = folder, world
        self.ledger = RankProgress(range(world), planning=True)
        self.known = ResultCache()
        self.findings = InterimVerdicts(Policy(), None)
        self.read: dict[ShardFiles, int] = {}
        self.asked = 0

    def step(self, now: float = 0.0) -> list[str]:
        """Read new records and compare the labels that are complete; return their ids."""
        news: list[NewRecords] = read_new_records(self.folder, frozenset(range(self.world)), self.ledger.known)
        self.findings.withdraw(self.ledger.take(news, now))
        names: dict[str, None] = {}
        while indices := self.ledger.take_ripe(now):
            names |= dict.fromkeys(record.data_id for index in indices for record in index.records)
            self.findings.add(compare_and_resolve(plan_run(indices, self.world), self.compare), {})
        return list(names)

    def compare(self, pairs: Sequence[Pair]) -> Outcomes:
        """Compare the pairs whose results are not known yet."""
        found, left = self.known.take(pairs)
        new = compare_pairs(left)
        self.asked += len(left)
        self.known.keep(left, new)
        return found | new
