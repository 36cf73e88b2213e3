"""Which suspects are looked at in the time that there is, and in which order."""

from __future__ import annotations

import time
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.cluster.file_locations import FileLocations
from aclcmp.orchestrator.compare import second_look_parts
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.compare.second_look_parts import LookSchedule
from aclcmp.orchestrator.core.diagnosis import NO_TIME, Fit, Look, Suspect
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from tests.compare.stored_pairs import pair_of, write

PLACES = FileLocations("here")
KEY = LabelKey(0, "x", 0)
SMALL, LARGE = (8, 8), (1 << 16, 1 << 16)


def suspect(rank: int, shape: tuple[int, ...] = SMALL, *, fitted: bool = False) -> Suspect:
    source, whole = Source("f", 0, "float32", shape, rank=rank), Region.whole(shape)
    pair = Pair(KEY, rank, source, whole, source, whole, shape, whole, "")
    box = Region.whole(tuple(min(size, 512) for size in shape))
    excerpt = replace(pair, golden_region=box, actual_region=box, region=box)
    return Suspect((pair,), 1.0, (excerpt,) if fitted else ())


def begun(schedule: LookSchedule) -> list[int]:
    return list(dict.fromkeys(part.number for part in schedule.parts if schedule.begin(part)))


def test_small_ones_are_looked_at_whatever_the_clock_says() -> None:
    assert begun(LookSchedule([suspect(rank, fitted=True) for rank in range(100)], PLACES, 0.0, 1)) == list(range(100))


def test_of_a_large_one_fits_alone_are_tried_if_there_is_no_time_for_more() -> None:
    schedule = LookSchedule([suspect(0, LARGE, fitted=True), suspect(1, LARGE), suspect(2)], PLACES, 1.0, 2)
    assert [(part.number, len(part.suspect.pairs)) for part in schedule.parts] == [(0, 0), (2, 1)]
    for part in schedule.parts:
        assert schedule.begin(part) and schedule.add(part, Look.empty()) == 1
    looks = schedule.looks()
    assert looks[KEY, 1] == NO_TIME and isinstance(looks[KEY, 0], Look) and list(looks) == [(KEY, n) for n in range(3)]


def test_without_a_limit_all_are_looked_at() -> None:
    assert begun(LookSchedule([suspect(rank, LARGE) for rank in range(3)], PLACES, inf, 1)) == [0, 1, 2]


def test_nothing_is_begun_when_the_time_is_over_and_what_was_begun_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(second_look_parts, "FREE_SECONDS", 0.0)
    schedule = LookSchedule([suspect(rank, (1 << 14, 1 << 14)) for rank in range(3)], PLACES, 100.0, 1)
    first, others = ([part for part in schedule.parts if (part.number == 0) is is_first] for is_first in (True, False))
    assert len(first) > 1 and schedule.begin(first[0])
    schedule.add(first[0], Look.empty())
    now = 100.0
    assert all(map(schedule.begin, first)) and not any(map(schedule.begin, others))
    assert [schedule.add(part, Look.empty()) for part in first[1:]] == [0] * (len(first) - 2) + [1]
    looks = schedule.looks()
    assert isinstance(looks.pop((KEY, 0)), Look) and looks == {(KEY, 1): NO_TIME, (KEY, 2): NO_TIME}


@given(st.permutations(range(10)))
def test_the_result_does_not_depend_on_which_part_is_done_first(order: list[int]) -> None:
    schedule = LookSchedule([suspect(0, (1 << 14, 1 << 14), fitted=True), suspect(1)], PLACES, inf, 1)
    parts = schedule.parts
    assert len(parts) == 10 and all(map(schedule.begin, parts))
    looks = [Look(Look.empty().channels, np.eye(64, dtype=np.int64)[n], (Fit("", str(n), 1.0),)) for n in range(10)]
    done = sum(schedule.add(parts[place], looks[place]) for place in order)
    found = schedule.looks()[KEY, 0]
    assert done == 2 and isinstance(found, Look)
    assert [fit.words for fit in found.fits] == [str(n) for n in range(9)]


def test_an_excerpt_that_failed_loses_nothing_else() -> None:
    whole = suspect(0, fitted=True)
    for failing, remains in ((0, Look), (1, str)):
        schedule = LookSchedule([whole], PLACES, inf, 1)
        for place, part in enumerate(schedule.parts):
            schedule.begin(part)
            schedule.add(part, "unreadable" if place == failing else Look.empty())
        assert type(schedule.looks()[KEY, 0]) is remains


def test_what_was_interrupted_is_absent() -> None:
    schedule = LookSchedule([suspect(0), suspect(1)], PLACES, inf, 1)
    schedule.begin(schedule.parts[1])
    schedule.add(schedule.parts[1], Look.empty())
    assert list(schedule.looks()) == [(KEY, 1)]


def test_threads_look_in_order_and_tell_how_many_are_done(tmp_path: Path) -> None:
    write(tmp_path / "data")
    suspects = [Suspect((pair_of(tmp_path / "data", rank),), 1.0) for rank in range(50)]
    done: list[int] = []
    looks = LocalComparer(2).look_again(suspects, 0.0, done.append)
    assert list(looks) == [each.name for each in suspects] and sum(done) == 50


def test_ctrl_c_ends_a_look_with_what_is_done(tmp_path: Path) -> None:
    write(tmp_path / "data")
    suspects = [Suspect((pair_of(tmp_path / "data", rank),), 1.0) for rank in range(3000)]

    def advance(looks: int) -> None:
        raise KeyboardInterrupt

    looks = LocalComparer(2).look_again(suspects, inf, advance)
    assert 0 < len(looks) < 3000 and all(isinstance(look, Look) for look in looks.values())
