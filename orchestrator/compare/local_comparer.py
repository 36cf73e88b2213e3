"""Comparison on this host by threads of this process: the kernels, which do the work, release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare.outcomes import OutcomeCollector
from aclcmp.orchestrator.compare.schedule import MOST_PER_HOST, batches, pair_bytes
from aclcmp.orchestrator.compare.second_look_parts import LookPart, LookSchedule
from aclcmp.orchestrator.compare.work import answer_tie_question, compare_batch, look_at
from aclcmp.orchestrator.core.diagnosis import NO_TIME, Look, Looks, Suspect, TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.run.dump_cleanup import remove_dumps

_HERE = "this host"
_PLACES = FileLocations(_HERE)

Work = TypeVar("Work")
Result = TypeVar("Result")


class LocalComparer:
    """A Comparer that needs no Ray. Results are those of actors on one node, to the last bit."""

    def __init__(self, workers: int | None = None) -> None:
        """Take the number of threads; by default one for each core that this process may use, at most 16."""
        self._workers = workers or min(len(os.sched_getaffinity(0)), MOST_PER_HOST)

    def compare_pairs(self, pairs: Sequence[Pair], advance: Callable[[int, int], None]) -> Outcomes:
        """Compare batches of pairs, large ones in parts."""
        outcomes = OutcomeCollector(pairs)
        with suppress(KeyboardInterrupt), closing(self._do_all(compare_batch, batches(pairs, _HERE, _PLACES))) as done:
            for batch, results in done:
                advance(outcomes.add(batch, results), sum(map(pair_bytes, batch)))
        return outcomes.complete()

    def count_ties(self, questions: Sequence[TieQuestion]) -> dict[tuple[LabelKey, int], int]:
        """Count the ties of each question."""
        found: dict[tuple[LabelKey, int], int] = {}
        with closing(self._do_all(answer_tie_question, questions)) as done:
            for question, ties in done:
                found[question.ids.key, question.ids.rank] = ties
        return found

    def look_again(self, suspects: Sequence[Suspect], seconds: float, advance: Callable[[int], None]) -> Looks:
        """Look at the parts of suspects that are begun in time."""
        schedule = LookSchedule(suspects, _PLACES, seconds, self._workers)

        def look(part: LookPart) -> Look | str:
            return look_at(part.suspect) if schedule.begin(part) else NO_TIME

        with suppress(KeyboardInterrupt), closing(self._do_all(look, schedule.parts)) as done:
            for part, found in done:
                advance(schedule.add(part, found))
        return schedule.looks()

    def remove_dumps(self, files: Mapping[int, Sequence[Path]], within: Path) -> tuple[int, int]:
        """Delete the files of all ranks."""
        return remove_dumps([path for paths in files.values() for path in paths], within)

    def _do_all(
        self, do: Callable[[Work], Result], works: Iterable[Work]
    ) -> Generator[tuple[Work, Result], None, None]:
        """Yield each piece of work with its result as they are done. When it is closed, only what runs is finished."""
        with ThreadPoolExecutor(self._workers, "compare") as threads:
            futures = {threads.submit(do, work): work for work in works}
            try:
                for future in as_completed(list(futures)):
                    yield futures.pop(future), future.result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
