"""The actor that compares on the node that holds the shards. Imports neither torch nor torch_npu."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.kernels.memory_map import give_back_store
from aclcmp.orchestrator.compare.remote_reads import Bytes, Fetched, Read, read_dense
from aclcmp.orchestrator.compare.work import answer_tie_question, compare_batch, failure_text, look_at
from aclcmp.orchestrator.core.diagnosis import Look, Suspect
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.dump_cleanup import remove_dumps
from aclcmp.orchestrator.run.shards import FoundShards, read_indices

if TYPE_CHECKING:
    from aclcmp.orchestrator.core.diagnosis import TieQuestion


class CompareActor:
    """Body of the Ray actor. It sends out rows of statistics and slices that other nodes need, never whole tensors."""

    def __init__(self) -> None:
        """Load the kernels, which the driver has built if necessary."""
        load_library()

    def read_indices(self, run: RunDir, ranks: frozenset[int]) -> FoundShards:
        """Index the shards of some ranks of a run on this node; also tell which cannot be read."""
        return read_indices(run, ranks)

    def remove_dumps(self, files: Sequence[Path], within: Path) -> tuple[int, int]:
        """Delete dumped files of this node below `within`; return how many files and bytes were deleted."""
        return remove_dumps(files, within)

    def read(self, reads: Sequence[Read]) -> tuple[int, Fetched]:
        """Read regions of tensors on this node for a comparison elsewhere; return their bytes in all, and the data.

        A region that cannot be read gets a message in place of its data.
        """
        give_back_store()  # also what was read before, which is in the store by now
        host = socket.gethostname()
        found: dict[Read, Bytes | str] = {}
        for read in reads:
            try:
                found[read] = read_dense(read)
            except Exception as error:  # as in `compare`
                found[read] = f"host {host}: {failure_text(error, f'{read[0].path} cannot be read')}"
        return sum(len(each) for each in found.values() if not isinstance(each, str)), found

    def compare(self, pairs: Sequence[Pair], *fetched: Fetched) -> list[PairStats | str]:
        """Return each pair's statistics, or a message why it cannot be read. `fetched` holds data of other nodes."""
        try:
            return compare_batch(pairs, _merge(fetched))
        finally:
            if fetched:
                give_back_store()

    def count_ties(self, question: TieQuestion) -> int:
        """Return how many ids that differ are ties; 0 if a tensor cannot be read."""
        return answer_tie_question(question)

    def look(self, suspect: Suspect, *fetched: Fetched) -> Look | str:
        """Diagnose pairs that do not match; return what was found, or a message why they could not be read."""
        try:
            return look_at(suspect, _merge(fetched))
        finally:
            if fetched:
                give_back_store()


def _merge(fetched: Sequence[Fetched]) -> Fetched:
    return {read: data for each in fetched for read, data in each.items()}
