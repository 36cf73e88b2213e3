"""Blocks of a cache beside a table of rows: those that do not fit the table are left out, not the table."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.labeling.shard.record import ROWS, LabelRecord
from aclcmp.labeling.shard.row_table import BLOCKS, REQUESTS, TABLE, pack_blocks, pack_request, read_row_tables

ROW = np.array([[0, 3, 7], [0, 4, 8]], np.int32)


def read(*contents: tuple[str, npt.NDArray[Any]]) -> Any:
    """Read what records of these names have, in order, behind a request; return the blocks of the table 1."""
    all_of_it = [(REQUESTS, pack_request(0, (0, "a"), [])), *contents]
    records = [LabelRecord(0, name, 0, ROWS, seq, 0.0, "") for seq, (name, _) in enumerate(all_of_it)]
    return read_row_tables(records, lambda record: all_of_it[record.seq][1])[1].blocks


def test_blocks_of_a_table() -> None:
    assert read((TABLE, ROW), (BLOCKS, pack_blocks(1, np.array([5, 9], np.int32)))).tolist() == [5, 9]
    assert read((TABLE, ROW)) is None


@pytest.mark.parametrize(
    "blocks",
    [
        pack_blocks(1, np.array([5], np.int32)),
        pack_blocks(0, np.array([5, 9], np.int32)),
        np.array([1, 5, 9], np.int32),
        np.array([[1, 5, 9]], np.int64),
        np.empty(0, np.int64),
    ],
)
def test_blocks_that_do_not_fit(blocks: npt.NDArray[Any]) -> None:
    assert read((TABLE, ROW), (BLOCKS, blocks)) is None
