"""The progress of all ranks by their journals: the position of each, and the labels that may be planned. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from aclcmp.labeling.shard.record import NO_LABELS, LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.live.complete_labels import NO_TASK, LabelStreams
from aclcmp.orchestrator.live.journal_tail import NewRecords

MOST_WAITING = 100_000
"""Labels on ranks that may wait for others to be planned; later ones are left to the comparison at the end."""
MOST_AT_ONCE = 200
"""Most labels that are planned together."""


@dataclass(frozen=True, slots=True)
class RankPosition:
    """The position of a rank: how far it has come."""

    labels: int
    task: int
    last: str
    """Id of the last label."""


class RankProgress:
    """The progress of all ranks: it takes new records, and returns ripe labels as indices of shards.

    Labels that name a file of the library are left to the comparison at the end, and so are labels with rows, which
    pair over all forwards, and ids that several processes of a rank have set: occurrences are counted over all of them.
    """

    def __init__(self, ranks: Sequence[int], *, planning: bool) -> None:
        """Start without records. Without `planning` they are only counted."""
        self.known: dict[ShardFiles, int] = {}
        """The offset up to which each journal was read."""
        self.positions: dict[int, RankPosition] = {}
        self.streams = LabelStreams(ranks)
        self._planning = planning
        self._indices: dict[ShardFiles, ShardIndex] = {}
        self._waiting: dict[LabelKey, list[tuple[ShardFiles, LabelRecord]]] = defaultdict(list)
        self._waiting_count = 0
        self._planned: set[LabelKey] = set()
        self._left: set[tuple[int, str]] = set()
        """(task, id) of the labels that are left to the end."""
        self._exits: dict[int, float] = {}
        """Ranks that have ended, with the time; their journals may still hold unread records."""
        self._done = -1
        """Labels of tasks before this one are left to the end, unless they were planned."""

    def take(self, news: Iterable[NewRecords], now: float) -> list[LabelKey]:
        """Take new records. Return labels that were returned as ripe too early: their results are wrong."""
        late: list[LabelKey] = []
        for files, part in ((each.files, each.part) for each in news):
            self.known[files] = part.offset
            if part.header is not None:
                self._indices[files] = ShardIndex(files, part.header, ())
            rank = files.rank
            if rank in self._exits:
                self._exits[rank] = now
            if part.records:
                before = self.positions.get(rank)
                last = part.records[-1]
                labels = len(part.records) + (before.labels if before else 0)
                self.positions[rank] = RankPosition(labels, last.task, last.data_id)
            if self._planning and files in self._indices:
                for record in part.records:
                    late += self._take(files, record, now)
            if part.ended and not files.process:
                self.streams.end(rank)
        return late

    def note_exit(self, rank: int, now: float) -> None:
        """Note that a rank has ended. Its journal is still read to the end."""
        self._exits[rank] = now

    def end(self, read_until: Callable[[int], float]) -> None:
        """Stop waiting for ranks that have ended and whose journal was read since and held nothing new.

        `read_until(rank)` is the time when the last answered reading began.
        """
        for rank in [rank for rank, when in self._exits.items() if read_until(rank) > when]:
            del self._exits[rank]
            self.streams.end(rank)

    def _take(self, files: ShardFiles, record: LabelRecord, now: float) -> list[LabelKey]:
        key = LabelKey(record.task, record.data_id, record.occurrence)
        name = record.task, record.data_id
        full = self._waiting_count >= MOST_WAITING or record.task < self._done
        of_rows = record.rows >= 0 or record.side in NO_LABELS  # rows pair when all forwards are there
        if files.process or record.tensor_path or not record.side or of_rows or full:
            self._left.add(name)
        if name in self._left:
            self._waiting_count -= len(self._waiting.pop(key, ()))
            self.streams.drop(key)
            return [key]
        if key in self._planned:
            self._left.add(name)
            return [key]
        self._waiting[key].append((files, record))
        self._waiting_count += 1
        self.streams.add(files.rank, key, record.side, now)
        return []

    def take_ripe(self, now: float, unheard: Collection[int] = ()) -> list[ShardIndex]:
        """Return indices of shards with the labels that have become ripe, at most 200 labels.

        `unheard` are ranks whose journals cannot be read now.
        """
        by_shard: dict[ShardFiles, list[LabelRecord]] = defaultdict(list)
        for key in self.streams.take_ripe(now, MOST_AT_ONCE, unheard):
            records = self._waiting.pop(key)
            self._waiting_count -= len(records)
            self._planned.add(key)
            for files, record in records:
                by_shard[files].append(record)
        return [
            replace(self._indices[files], records=tuple(sorted(records, key=lambda record: record.seq)))
            for files, records in sorted(by_shard.items())
        ]

    def forget(self) -> None:
        """Forget tasks that no rank will return to: one-sided labels in them stay one-sided."""
        for key in self.streams.forget():
            self._waiting_count -= len(self._waiting.pop(key))
        done = self.streams.oldest_task
        if self._done < done < NO_TASK:
            self._done = done
            self._planned = {key for key in self._planned if key.task >= done}
            self._left = {name for name in self._left if name[0] >= done}

    @property
    def labels(self) -> int:
        """Number of labels that all ranks have set."""
        return sum(position.labels for position in self.positions.values())
