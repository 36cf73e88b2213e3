"""Small makers of headers and records."""

import numpy as np
import pytest

from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord


@pytest.fixture
def header() -> ShardHeader:
    return ShardHeader("20260101-000000", 3, 8, 3, 0, "host-a", 42, 1.5, {"aclcmp": "0.1.0"})


def record_of(values: np.ndarray, data_id: str, seq: int, side: str = "pta", task: int = 0) -> LabelRecord:
    return LabelRecord(task, data_id, 0, side, seq, 0.5, "model.py:1", values.dtype.name, values.shape, "cpu")


def bits_of(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
