"""Where the error sits, in words: ranks, rows and channels of labels with real statistics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from aclcmp.orchestrator.core.diagnosis import HISTOGRAM_BINS, ChannelSums, Look
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.judge.error_patterns import pattern_of
from aclcmp.orchestrator.judge.error_places import AxisSums, growth_of, place_of
from tests.judge.wrong import label_of, look_of

X = np.random.default_rng(0).standard_normal((64, 128))


def noisy(scale: float = 0.1, seed: int = 1) -> np.ndarray:
    return X + scale * np.random.default_rng(seed).standard_normal(X.shape)


def ranks_of(actual: Mapping[int, np.ndarray], hosts: Mapping[int, str] | None = None, collective: bool = False) -> str:
    return pattern_of(label_of(X, actual), {}, hosts or {}, after_collective=collective).ranks


def wrong_on(*ranks: int, of: int = 8) -> dict[int, np.ndarray]:
    return {rank: noisy(seed=rank) if rank in ranks else X for rank in range(of)}


def test_which_ranks() -> None:
    assert ranks_of({0: noisy()}) == "rank 0, the only one compared"
    assert ranks_of(wrong_on(3)) == "rank 3 alone of 8: its weights, its slice or its device"
    assert "padding and an uneven slice at the end" in ranks_of(wrong_on(7))
    assert ranks_of(wrong_on(*range(8))) == "all 8 ranks alike: the model, a kernel, or what they do together"
    assert ranks_of(wrong_on(*range(8)), collective=True).startswith("all 8 ranks alike, right on all before: the coll")
    assert ranks_of(wrong_on(0, 3)) == "ranks 0, 3 of 8"
    assert "one in every 2" in ranks_of(wrong_on(1, 3, 5, 7))
    assert ranks_of(wrong_on(4, 5, 6, 7)).endswith("neighbours: one group of parallel ranks?")
    uneven = {rank: noisy(10.0 if rank == 2 else 0.1, seed=rank) for rank in range(4)}
    assert ranks_of(uneven).startswith("all 4 ranks, but rank 2 holds")
    assert ranks_of({rank: noisy(0.1 * (1 + rank), seed=rank) for rank in range(4)}) == "all 4 ranks, not alike"


def test_which_hosts() -> None:
    hosts = {rank: "ab"[rank // 4] for rank in range(8)}
    assert ranks_of(wrong_on(4, 5, 6, 7), hosts) == "ranks 4, 5, 6, 7, all ranks of host b, no other: the host"
    assert "number 1 of every host" in ranks_of(wrong_on(1, 5), hosts)
    assert ranks_of(wrong_on(1, 4), hosts) == "ranks 1, 4 of 8"
    assert ranks_of(wrong_on(3), hosts).startswith("rank 3 alone")


def test_shares_add_up() -> None:
    pattern = pattern_of(label_of(X, wrong_on(1, 2)), {}, {})
    assert sorted(pattern.by_rank) == [1, 2]
    assert sum(pattern.by_rank.values()) == pytest.approx(1.0)


def test_rows_and_channels() -> None:
    y = noisy(1e-6)
    y[40] += 1
    pattern = pattern_of(label_of(X, {0: y}), {0: look_of(X, y)}, {})
    assert (pattern.rows, pattern.channels) == ("row 40 holds all of it", "")
    y = noisy(0.02)
    y[:, 96:112] += 1
    pattern = pattern_of(label_of(X, {0: y}), {0: look_of(X, y)}, {})
    assert pattern.rows == "" and pattern.channels.startswith("channels 96-111 hold ")


def test_nothing_but_a_failed_nonfinite_rank() -> None:
    label = label_of(X, {0: X * np.nan})
    pattern = pattern_of(label, {}, {})
    assert (pattern.by_rank, pattern.rows, pattern.channels) == ({}, "", "")
    assert label.ranks[0].status is Status.NONFINITE and label.ranks[0].origin is Origin.OWN


def test_ranks_of_different_wholes_are_not_added_up() -> None:
    """Looks of ranks whose channels are grouped differently have no common places."""
    looks = {
        rank: Look(ChannelSums(group, np.arange(4), np.ones(4), np.eye(4)[0]), np.zeros(HISTOGRAM_BINS, int), ())
        for rank, group in ((0, 1), (1, 2))
    }
    label = label_of(X, {0: noisy(), 1: noisy()})
    assert isinstance(label, LabelVerdict) and label.key == LabelKey(0, "x", 0)
    assert pattern_of(label, looks, {}).channels == ""


def along(dd: np.ndarray, xx: np.ndarray | None = None, group: int = 1) -> AxisSums:
    return AxisSums("row", group, np.arange(len(dd)), np.ones(len(dd)) if xx is None else xx, np.asarray(dd, float))


def words(dd: np.ndarray, **more) -> str:
    place = place_of(along(dd, **more))
    return f"{place.kind}: {place.words}" if place is not None else ""


def test_places() -> None:
    spread = np.full(64, 1e-4)

    def at(*places: int) -> np.ndarray:
        dd = spread.copy()
        dd[list(places)] = 1.0
        return dd

    assert words(at(5)) == "one: row 5 holds 99.4 % of it"
    assert words(at(5), group=4) == "one: rows 20-23 hold 99.4 % of it"
    assert words(at(5, 6, 7)) == "stretch: rows 5-7 hold 99.8 % of it"
    assert words(at(3, 20, 41)) == "few: rows 3, 20, 41 hold 99.8 % of it"
    assert words(at(*range(60, 64))) == "end: rows 60-63 hold 99.9 % of it"
    assert words(at(*range(40, 64))) == "end: rows 40-63 hold all of it"
    assert words(at(*range(8, 24))) == "stretch: rows 8-23 hold all of it"
    assert words(at(*range(3, 64, 8))) == "period: rows 3 of every 8 hold 99.9 % of it"
    assert words(at(*range(1, 64, 2))) == "period: rows 1 of every 2 hold all of it"
    assert words(spread) == words(np.zeros(64)) == words(at(*range(50))) == ""
    assert words(np.full(64, np.nan)) == words(np.ones(1)) == ""


def test_where_golden_is_is_no_place() -> None:
    golden = np.ones(64)
    golden[7] = 1e4
    assert words(golden * 1e-4, xx=golden) == ""
    assert words(np.where(np.arange(64) == 9, 1.0, 1e-6), xx=golden).startswith("one: row 9")


def test_random_errors_sit_nowhere() -> None:
    for seed in range(200):
        random = np.random.default_rng(seed)
        shape = (random.integers(2, 300), random.integers(16, 100))
        dd = (random.standard_normal(shape) ** 2).sum(1)
        found = along(dd, (random.standard_normal(shape) ** 2).sum(1))
        assert place_of(found) is None and growth_of(found) is None


def test_growth() -> None:
    rows = np.arange(64)
    growth = growth_of(along((0.01 * rows) ** 2))
    assert growth is not None and growth.share >= 0.9 and growth.words.startswith("the error grows with the row: 0.0")
    assert growth_of(along(np.minimum(rows, 8.0) ** 2)) is None  # it stays as it is then
    assert growth_of(along((rows > 40) * 1.0)) is None
    assert growth_of(along(rows[::-1] ** 2)) is None
