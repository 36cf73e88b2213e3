"""Statistics of a stored pair with only summaries of at least one side: what is there of the other is summed up."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.element_values import components_of
from aclcmp.labeling.shard.row_summaries import RowSummaries, concatenate
from aclcmp.labeling.shard.summarise import summarise, summarise_rows
from aclcmp.labeling.shard.tensor_summary import TensorSummary
from aclcmp.orchestrator.compare.gathered_rows import GatheredRows
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.compare.remote_reads import Fetched, Read, fetched_bits, read_bytes, read_dense
from aclcmp.orchestrator.compare.row_summary_stats import stats_of_row_summaries
from aclcmp.orchestrator.compare.summaries import stats_of_summaries
from aclcmp.orchestrator.core.regions import Pair, Region
from aclcmp.orchestrator.core.stats import PairStats, RowSums

_WINDOW_BYTES = 4 << 20


def summary_stats(pair: Pair, fetched: Fetched, group: int) -> PairStats:
    """Return the statistics of a pair; `group` rows of the whole tensor are summed together.

    `fetched` holds what lies on other hosts. Raises ShardError when a side cannot be read, or is not what was recorded.
    """
    if pair.more_golden or pair.more_actual:
        raise ShardFormatError("only a summary of a summand was kept, which cannot be added up: use --capture full")
    sides = ((pair.golden, pair.golden_region), (pair.actual, pair.actual_region))
    if pair.actual.places is None:
        return _stats_of_tensors(pair, sides, fetched)
    if not pair.region.size:
        return PairStats.empty()
    sketch = all(source.capture != "stats" for source, _ in sides)
    golden, actual = (
        _summarise_rows(read, fetched, sketch) if read[0].is_whole else _stored_rows(read, fetched) for read in sides
    )
    stats = stats_of_row_summaries(golden, actual, pair.golden.dtype, pair.actual.dtype)
    return replace(stats, rows=_rows_in_whole(stats.rows, pair, group))


def _stats_of_tensors(pair: Pair, sides: tuple[Read, Read], fetched: Fetched) -> PairStats:
    stored = [None if read[0].is_whole else _stored_tensor(read, fetched) for read in sides]
    sketch = all(summary is None or summary.sketch.size for summary in stored)
    golden, actual = (
        summary or _summarise_tensor(read, fetched, sketch) for read, summary in zip(sides, stored, strict=True)
    )
    return stats_of_summaries(golden, actual, pair.golden.dtype, pair.actual.dtype)


def _stored_tensor(read: Read, fetched: Fetched) -> TensorSummary:
    source, _ = read
    packed = fetched_bits(fetched, read)
    summary = TensorSummary.unpack(read_dense(read) if packed is None else packed)
    if not summary.fits(source.dtype, source.shape):
        raise ShardFormatError("a tensor's summary is not one of its shape: label the tensor again")
    return summary


def _summarise_tensor(read: Read, fetched: Fetched, sketch: bool) -> TensorSummary:
    source, _ = read
    bits = fetched_bits(fetched, read)
    if bits is not None:
        return summarise(bits, source.dtype, source.shape, sketch=sketch)
    stored = open_bits(source)
    bits = np.asarray(stored.bits).view(np.uint8)
    summary = summarise(bits, source.dtype, source.shape, sketch=sketch, release=stored.release)
    stored.check()
    return summary


def _stored_rows(read: Read, fetched: Fetched) -> RowSummaries:
    source, region = read
    packed = fetched_bits(fetched, read)
    width = math.prod(region.shape[1:]) * components_of(source.dtype)
    return RowSummaries.unpack(read_dense(read) if packed is None else packed, region.shape[0], width)


def _summarise_rows(read: Read, fetched: Fetched, sketch: bool) -> RowSummaries:
    """Sum up what a region has of each row, some MiB at a time."""
    source, region = read
    bits = fetched_bits(fetched, read)
    if bits is not None:
        return summarise_rows(bits, source.dtype, region.shape[0], sketch=sketch)
    stored = GatheredRows(source)
    step = max(_WINDOW_BYTES * region.shape[0] // read_bytes(read), 1)
    parts = []
    for start in range(0, region.shape[0], step):
        rows = min(step, region.shape[0] - start)
        window = Region((region.start[0] + start, *region.start[1:]), (rows, *region.shape[1:]))
        parts.append(summarise_rows(stored.read(window), source.dtype, rows, sketch=sketch))
    stored.check()
    return concatenate(parts)


def _rows_in_whole(rows: RowSums, pair: Pair, group: int) -> RowSums:
    """Return sums by named row as sums by groups of rows of the whole, whose rows are last axes."""
    each = math.prod(pair.whole_shape[1:-1])
    numbers = (pair.region.start[0] + rows.index) * each // group
    index, firsts = np.unique(numbers, return_index=True)
    return RowSums(group, index, np.add.reduceat(rows.sum_xx, firsts), np.add.reduceat(rows.sum_dd, firsts))
