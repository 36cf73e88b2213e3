"""Blocks of a KV cache that hold what belongs elsewhere: through real shards to the words of the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aclcmp.labeling.rows import Rows
from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.pipeline.exchanged_blocks import exchanged_block_hints
from tests.models.comparing import compare_pairs
from tests.pipeline.test_rows import Job, compare, tokens_of, value_of

NAME = "layers.0.attn.k_cache"
SIZE = 4
LENGTHS = {0: 12, 1: 7, 2: 5}
TABLES = {0: [3, 4, 5], 1: [6, 7], 2: [8, 9]}
"""By request, the blocks of SIZE tokens that hold its rows."""


@dataclass
class Cache:
    """A cache of blocks with right rows, which a test changes; rows that were never written are 0."""

    blocks: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = {block: np.zeros((SIZE, 12), np.float32) for table in TABLES.values() for block in table}
        for request, length in LENGTHS.items():
            for at in range(length):
                self.blocks[TABLES[request][at // SIZE]][at % SIZE] = value_of(request, at)

    def look(
        self,
        folder: Path,
        tables: Mapping[int, list[int]] = TABLES,
        ranks: int = 1,
    ) -> tuple[Plan, list[Hint]]:
        """Compare what is read through tables with golden; return the hints at blocks."""
        golden, actual = Job(folder / "g", 1), Job(folder / "a", ranks)
        for request, length in LENGTHS.items():
            values = np.array([value_of(request, at) for at in range(length)])
            names = Rows(f"g{request}", list(range(length)), tokens_of(request, length))
            golden.label(0, "pta", NAME, values, names)
        places = [
            (request, at, tables[request][at // SIZE]) for request, length in LENGTHS.items() for at in range(length)
        ]
        rows = Rows(
            [f"r{request}" for request, _, _ in places],
            [at for _, at, _ in places],
            [tokens_of(request, at + 1)[at] for request, at, _ in places],
            blocks=np.array([block for _, _, block in places], np.int32),
        )
        read = np.array([self.blocks[block][at % SIZE] for _, at, block in places])
        for rank in range(ranks):
            actual.label(rank, "acl", NAME, read, rows)
        plan, judgement = compare(golden, actual, ranks)
        found = exchanged_block_hints(plan, judgement.labels, compare_pairs)
        return plan, [hint for hints in found.values() for hint in hints]


def test_a_right_cache_has_no_hint(tmp_path: Path) -> None:
    plan, hints = Cache().look(tmp_path)
    (label,) = plan.labels
    assert hints == [] and label.rows is not None and label.rows.blocks is not None
    assert label.rows.blocks.tolist() == [3] * 4 + [4] * 4 + [5] * 4 + [6] * 4 + [7] * 3 + [8] * 4 + [9]


def test_a_block_that_was_copied_over_another(tmp_path: Path) -> None:
    cache = Cache()
    cache.blocks[4] = cache.blocks[6]
    (hint,) = cache.look(tmp_path, ranks=2)[1]
    held = "block 4 holds positions 0-3 of request r1 (golden g1) (expected: positions 4-7 of request r0 (golden g0))"
    assert hint.words.startswith(held) and hint.ranks == (0, 1) and hint.explained > 0.99, hint


def test_requests_that_read_each_others_blocks(tmp_path: Path) -> None:
    """Behind the end of the shorter one nothing was written."""
    _, (hint,) = Cache().look(tmp_path, {**TABLES, 1: [6, 9], 2: [8, 7]})
    words = "block 9 holds position 4 of request r2 (golden g2) (expected: position 4 of request r1 (golden g1))"
    assert words in hint.words and "block 7 holds position 4 of request r1" in hint.words, hint
    assert 0.25 < hint.explained < 1.0


def test_a_block_in_the_place_of_a_later_one(tmp_path: Path) -> None:
    _, (hint,) = Cache().look(tmp_path, {**TABLES, 0: [3, 3, 5]})
    assert hint.words.startswith("block 3 holds positions 0-3 of request r0 (golden g0) (expected: positions 4-7"), hint


def test_rows_that_are_lost(tmp_path: Path) -> None:
    cache = Cache()
    cache.blocks[7][1] = 0.0
    _, (hint,) = cache.look(tmp_path)
    assert hint.kind == "wrong blocks" and "block 7 (position 5 of request r1" in hint.words, hint


def test_errors_all_over_are_not_of_blocks(tmp_path: Path) -> None:
    cache = Cache()
    for block in cache.blocks.values():
        block *= 1.5
    assert cache.look(tmp_path)[1] == []
