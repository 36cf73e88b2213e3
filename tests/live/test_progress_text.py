"""What people are told while a run goes on: where ranks stand, when nothing goes on, and what a terminal shows."""

import pytest
from rich.cells import cell_len

from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.live.progress_text import STALL_SECONDS, StallTimer, positions_text, stall_message
from aclcmp.orchestrator.live.rank_progress import RankPosition
from aclcmp.orchestrator.live.view import LINES, view_lines
from tests.report.made_up import decoder_labels, judgement_of


def positions(**where: tuple[int, int, str]) -> dict[int, RankPosition]:
    return {int(rank[1:]): RankPosition(*place) for rank, place in where.items()}


def test_who_stands_alone_is_told_first() -> None:
    known = {rank: RankPosition(12, 0, "layers.5.mlp") for rank in range(8)} | {
        5: RankPosition(9, 0, "layers.4.attn.q")
    }
    told = "rank 5 (host b) stands after layers.4.attn.q, ranks 0-4, 6-7 after layers.5.mlp"
    assert positions_text(known, range(8), {5: "b"}) == told
    assert stall_message(60.0, known, range(8), {5: "b"}) == (
        f"no news for 60 s: {told}: a rank that hangs in a collective?"
    )


@pytest.mark.parametrize(
    ("known", "running", "words"),
    [
        ({}, range(4), ""),
        (positions(r0=(3, 0, "a"), r1=(3, 0, "a")), range(2), "ranks 0-1 stand after a"),
        (positions(r0=(3, 0, "a"), r1=(5, 0, "a")), range(2), "ranks 0-1 stand after a"),
        (positions(r0=(3, 0, "a")), range(3), "rank 0 stands after a, ranks 1-2 before the first label"),
        (
            positions(r1=(3, 0, "a"), r2=(3, 0, "a")),
            range(3),
            "rank 0 stands before the first label, ranks 1-2 after a",
        ),
        (
            positions(r0=(3, 1, "a"), r1=(3, 0, "a")),
            range(2),
            "rank 0 stands after a (task 1), rank 1 after a (task 0)",
        ),
        (positions(r0=(3, 0, "a"), r1=(3, 0, "b")), [1], "rank 1 stands after b"),
        (positions(r0=(1, 0, "a\x1b[31m")), [0], "rank 0 stands after a\\x1b[31m"),
    ],
)
def test_where_ranks_stand(known: dict[int, RankPosition], running: range, words: str) -> None:
    assert positions_text(known, running, {}) == words


def test_of_many_places_a_few_are_told() -> None:
    known = {rank: RankPosition(rank, 0, f"layers.{rank}") for rank in range(40)}
    told = positions_text(known, range(40), {})
    assert told.endswith("36 ranks elsewhere") and told.count("layers.") == 4


def test_no_label_at_all() -> None:
    assert stall_message(60.0, {}, range(4), {}) == "no news for 60 s: no rank has set a label yet"


def test_a_stall_is_told_twice_and_again_after_news() -> None:
    first, second = STALL_SECONDS
    quiet = StallTimer(0.0)
    assert quiet.due(first - 1) is None
    assert quiet.due(first) == first
    assert quiet.due(first + 1) is None
    assert quiet.due(second) == second
    assert quiet.due(10 * second) is None
    quiet.reset(1000.0)
    assert quiet.due(1000.0 + first) == first


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("ranks", [1, 8, 100])
@pytest.mark.parametrize("tasks", [0, 1, 3])
def test_it_fits_a_terminal(plain: bool, width: int, ranks: int, tasks: int) -> None:
    known = {rank: RankPosition(rank % 7, 0, f"layers.{rank}." + "目录" * 40) for rank in range(ranks)}
    labels = [
        label for task in range(tasks) for label in decoder_labels(6, ranks, (f"layers.{task}.attn.out", 0), task)
    ]
    judgement = judgement_of(labels) if tasks else None
    found = view_lines(judgement, {Status.MATCH: 1200, Status.DRIFT: 3}, known, range(ranks), width, plain)
    assert min(ranks, 4) + 1 <= len(found) <= LINES and all(cell_len(line.plain) <= width for line in found)
    assert not plain or all(line.plain.isascii() for line in found)
    text = "\n".join(line.plain for line in found)
    assert "1,203 labels of earlier tasks: 1,200 match, 3 drift" in text
    assert not tasks or width < 80 or ("layers.0.attn.out" in text and "own" in text)
