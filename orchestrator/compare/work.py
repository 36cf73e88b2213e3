"""Pieces of work of a comparison, in the process that does them: an error becomes a message in place of a result."""

from __future__ import annotations

from collections.abc import Sequence

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.compare.remote_reads import NOTHING, Fetched
from aclcmp.orchestrator.core.diagnosis import Look, Suspect, TieQuestion
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import PairStats


def compare_batch(pairs: Sequence[Pair], fetched: Fetched = NOTHING) -> list[PairStats | str]:
    """Return each pair's statistics, or a message why it cannot be read. `fetched` holds data of other nodes."""
    results: list[PairStats | str] = []
    for pair in pairs:
        try:
            results.append(read_pair_stats(pair, fetched))
        except Exception as error:  # one impossible pair must not fail the whole batch
            results.append(failure_text(error, "cannot be compared"))
    return results


def answer_tie_question(question: TieQuestion) -> int:
    """Return how many ids that differ are ties; 0 if that cannot be told."""
    from aclcmp.orchestrator.compare.tie_check import count_ties

    try:
        return count_ties(question)
    except Exception:  # a report without ties is better than none
        return 0


def look_at(suspect: Suspect, fetched: Fetched = NOTHING) -> Look | str:
    """Diagnose pairs that do not match; return what was found, or a message why they could not be read."""
    # here and not above: most comparisons need no diagnosis
    from aclcmp.orchestrator.compare.diagnosis.second_look import diagnose_pairs

    try:
        return diagnose_pairs(suspect, fetched)
    except Exception as error:  # a report without a second look is better than none
        return failure_text(error, "cannot be looked at again")


def failure_text(error: Exception, what: str) -> str:
    """Return the message of an error of ours or of the system; any other one behind `what` could not be done."""
    words = " ".join(str(error).split())
    return words if isinstance(error, AclcmpError | OSError) else f"{what}: {type(error).__name__}: {words}"
