"""What the journals of all ranks have told so far: where each rank stands, and the labels that may be planned. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.live.complete_labels import NO_TASK, Streams
from aclcmp.orchestrator.live.journal_tail import ShardNews

MOST_WAITING = 100_000
"""Labels on ranks that may wait for others to be planned; what comes then is left to the comparison at the end."""
MOST_AT_ONCE = 200
"""Labels that are planned together."""


@dataclass(frozen=True, slots=True)
class Stand:
    """How far a rank has come."""

    labels: int
    task: int
    last: str
    """Id of the last label."""


class Ledger:
    """Takes what is new in journals; gives what is ripe, as indices of shards that hold only that.

    Left to the end are labels that name a file of the library, and those of which several processes of a rank have set
    some: their occurrences are counted over all of them.
    """

    def __init__(self, ranks: Sequence[int], *, planning: bool) -> None:
        """Without `planning` it only counts."""
        self.known: dict[ShardFiles, int] = {}
        """How far each journal was read."""
        self.stands: dict[int, Stand] = {}
        self.streams = Streams(ranks)
        self._planning = planning
        self._indices: dict[ShardFiles, ShardIndex] = {}
        self._waiting: dict[LabelKey, list[tuple[ShardFiles, LabelRecord]]] = defaultdict(list)
        self._held = 0
        self._planned: set[LabelKey] = set()
        self._left: set[tuple[int, str]] = set()
        """(task, id) that is left to the end."""
        self._over: dict[int, float] = {}
        """Ranks that have ended, but their journals may tell more than was read by then."""
        self._done = -1
        """Tasks before this one are left to the end, as far as they were not planned."""

    def take(self, news: Iterable[ShardNews], now: float) -> list[LabelKey]:
        """Take news. Return labels that were given as ripe and ought not to have been: what is known of them is off."""
        late: list[LabelKey] = []
        for files, grown in ((each.files, each.grown) for each in news):
            self.known[files] = grown.offset
            if grown.header is not None:
                self._indices[files] = ShardIndex(files, grown.header, ())
            rank = files.rank
            if rank in self._over:
                self._over[rank] = now
            if grown.records:
                before = self.stands.get(rank)
                last = grown.records[-1]
                labels = len(grown.records) + (before.labels if before else 0)
                self.stands[rank] = Stand(labels, last.task, last.data_id)
            if self._planning and files in self._indices:
                for record in grown.records:
                    late += self._take(files, record, now)
            if grown.ended and not files.process:
                self.streams.end(rank)
        return late

    def over(self, rank: int, now: float) -> None:
        """A rank has ended. What it has labelled and was not read yet is waited for."""
        self._over[rank] = now

    def end(self, looked: Callable[[int], float]) -> None:
        """Wait no more for ranks that have ended and of which a later look has told nothing.

        `looked(rank)` is when the last look began whose answer was taken.
        """
        for rank in [rank for rank, when in self._over.items() if looked(rank) > when]:
            del self._over[rank]
            self.streams.end(rank)

    def _take(self, files: ShardFiles, record: LabelRecord, now: float) -> list[LabelKey]:
        key = LabelKey(record.task, record.data_id, record.occurrence)
        name = record.task, record.data_id
        full = self._held >= MOST_WAITING or record.task < self._done
        if files.process or record.tensor_path or not record.side or full:
            self._left.add(name)
        if name in self._left:
            self._held -= len(self._waiting.pop(key, ()))
            self.streams.drop(key)
            return [key]
        if key in self._planned:
            self._left.add(name)
            return [key]
        self._waiting[key].append((files, record))
        self._held += 1
        self.streams.add(files.rank, key, record.side, now)
        return []

    def take_ripe(self, now: float, unheard: Collection[int] = ()) -> list[ShardIndex]:
        """Return indices with the labels that have become ripe, at most 200; none if none has.

        `unheard` are ranks whose journals cannot be read now.
        """
        by_shard: dict[ShardFiles, list[LabelRecord]] = defaultdict(list)
        for key in self.streams.take_ripe(now, MOST_AT_ONCE, unheard):
            records = self._waiting.pop(key)
            self._held -= len(records)
            self._planned.add(key)
            for files, record in records:
                by_shard[files].append(record)
        return [
            replace(self._indices[files], records=tuple(sorted(records, key=lambda record: record.seq)))
            for files, records in sorted(by_shard.items())
        ]

    def forget(self) -> None:
        """Forget what no rank comes back to: what is one-sided there stays so."""
        for key in self.streams.forget():
            self._held -= len(self._waiting.pop(key))
        done = self.streams.oldest_task
        if self._done < done < NO_TASK:
            self._done = done
            self._planned = {key for key in self._planned if key.task >= done}
            self._left = {name for name in self._left if name[0] >= done}

    @property
    def labels(self) -> int:
        """How many labels all ranks have set."""
        return sum(stand.labels for stand in self.stands.values())
