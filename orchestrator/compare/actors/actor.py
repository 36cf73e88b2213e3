"""What runs on the node that holds the shards. Imports neither torch nor torch_npu."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.compare.actors.remote_reads import Bytes, Fetched, Read, read_dense
from aclcmp.orchestrator.compare.kernels.jit import give_back_compiler
from aclcmp.orchestrator.compare.kernels.memory_map import give_back_store
from aclcmp.orchestrator.compare.pair import read_pair_stats, warm_up
from aclcmp.orchestrator.core.diagnosis import Look, Suspect
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.dump_cleanup import remove_dumps
from aclcmp.orchestrator.run.shards import read_indices

if TYPE_CHECKING:
    from aclcmp.labeling.shard.shard_index import ShardIndex
    from aclcmp.orchestrator.core.diagnosis import TieQuestion


class CompareActor:
    """Body of the Ray actor: rows of statistics go out, and slices that other nodes lack; whole tensors never do."""

    def __init__(self) -> None:
        """Load the kernels, which the driver has compiled if it had to."""
        give_back_compiler()
        warm_up()
        give_back_compiler()

    def read_indices(self, run: RunDir, ranks: frozenset[int]) -> tuple[list[ShardIndex], list[str]]:
        """Index the shards of some ranks of a run, on this node; also say in words which could not be read."""
        return read_indices(run, ranks)

    def remove_dumps(self, files: Sequence[Path], within: Path) -> tuple[int, int]:
        """Delete dumped files of this node below `within`; return how many files and bytes went."""
        return remove_dumps(files, within)

    def read(self, reads: Sequence[Read]) -> tuple[int, Fetched]:
        """Read regions of tensors that lie on this node, to be compared on another; also return how many bytes.

        What cannot be read is told in words.
        """
        give_back_store()  # with what was read before, which is in the store by now
        host = socket.gethostname()
        found: dict[Read, Bytes | str] = {}
        for read in reads:
            try:
                found[read] = read_dense(read)
            except Exception as error:  # as in `compare`
                found[read] = f"host {host}: {_told(error, f'{read[0].path} cannot be read')}"
        return sum(len(each) for each in found.values() if not isinstance(each, str)), found

    def compare(self, pairs: Sequence[Pair], *fetched: Fetched) -> list[PairStats | str]:
        """Return each pair's statistics, or in words why it could not be read; what other nodes hold was `fetched`."""
        reads = {read: found for each in fetched for read, found in each.items()}
        outcomes: list[PairStats | str] = []
        for pair in pairs:
            try:
                outcomes.append(read_pair_stats(pair, reads))
            except Exception as error:  # one impossible pair must not take those beside it along
                outcomes.append(_told(error, "cannot be compared"))
        if fetched:
            give_back_store()
        return outcomes

    def count_ties(self, question: TieQuestion) -> int:
        """Return how many ids that differ are ties; none where that cannot be read."""
        from aclcmp.orchestrator.compare.tie_check import count_ties

        try:
            return count_ties(question)
        except (AclcmpError, OSError):
            return 0

    def look(self, suspect: Suspect, *fetched: Fetched) -> Look | str:
        """Look again at what does not match; return what was found, or in words why it could not be read."""
        # here and not above: most comparisons have nothing to look at again
        from aclcmp.orchestrator.compare.diagnosis.second_look import diagnose_pairs

        try:
            return diagnose_pairs(suspect, {read: found for each in fetched for read, found in each.items()})
        except Exception as error:  # a report without a second look is better than none
            return _told(error, "cannot be looked at again")
        finally:
            if fetched:
                give_back_store()


def _told(error: Exception, what: str) -> str:
    words = " ".join(str(error).split())
    return words if isinstance(error, AclcmpError | OSError) else f"{what}: {type(error).__name__}: {words}"
