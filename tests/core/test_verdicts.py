"""Statuses: what is stored of them stays, and each differs from the others in what must tell them apart."""

from __future__ import annotations

import pickle

from aclcmp.orchestrator.core.verdicts import WRONG, Status, worst

STORED = {"match": 1, "drift": 2, "diverged": 3, "nonfinite": 4, "mismatch": 5, "missing": 6, "failed": 7}
"""As reports of 0.1.0 hold them; a new status takes a new number."""


def test_stored_numbers_keep_their_meaning() -> None:
    assert {status.value: status.number for status in Status} | STORED == {s.value: s.number for s in Status}
    assert STORED.keys() <= {status.value for status in Status}


def test_statuses_are_told_apart() -> None:
    for name in ("number", "severity", "mark", "ascii"):
        assert len({getattr(status, name) for status in Status}) == len(Status), name
    assert all(len(status.mark) == 1 and status.ascii.isascii() and 0 < status.number < 256 for status in Status)


def test_the_most_severe_counts() -> None:
    assert [s.value for s in sorted(Status, key=lambda status: status.severity)] == [
        *("match", "drift", "missing", "mismatch", "failed", "nonfinite", "diverged")
    ]
    assert worst(Status) is Status.DIVERGED and worst([Status.MATCH]) is Status.MATCH
    assert WRONG == (Status.DIVERGED, Status.NONFINITE)


def test_a_status_is_itself_again_after_a_journey() -> None:
    assert all(pickle.loads(pickle.dumps(status)) is status and status == status.value for status in Status)
