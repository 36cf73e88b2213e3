"""The pairs that compare one label on one rank, and the checks whether they can be compared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.plan.label_sides import LabelsByRank
from aclcmp.orchestrator.plan.layouts.alignment import AlignedRegion
from aclcmp.orchestrator.plan.layouts.fractal_nz import column_blocks
from aclcmp.orchestrator.plan.layouts.interpretations import AlignmentError
from aclcmp.orchestrator.plan.rank_labels import RankLabel


def make_pairs(
    key: LabelKey, rank: int, region: AlignedRegion, goldens: LabelsByRank, actuals: LabelsByRank, layout: str
) -> list[Pair]:
    """Return the pairs of one region on one rank: one, or one for each column block of a tensor in FRACTAL_NZ order.

    Raises AlignmentError where a summary or a sum cannot be compared.
    """
    golden, actual = goldens[region.golden_rank], actuals[rank]
    golden_source, actual_source = golden.source, actual.source
    pair = Pair(
        key,
        rank,
        golden_source,
        region.golden_region,
        actual_source,
        region.actual_region,
        region.whole_shape,
        region.region,
        layout,
        tuple([goldens[each].source for each in region.golden_summands]),
        tuple([actuals[each].source for each in region.actual_summands]),
    )
    is_sum = pair.more_golden or pair.more_actual
    if not is_sum and golden_source.is_whole and actual_source.is_whole and not actual.in_blocks:
        return [pair]
    blocks = column_blocks(actual_source, pair.actual_region.shape) if actual.in_blocks else None
    _check_summaries(pair, in_blocks=blocks is not None)
    if is_sum:
        _check_summands(pair)
    if blocks is None:
        return [pair]
    if is_sum:
        raise AlignmentError("summands in FRACTAL_NZ order cannot be added")
    return [
        replace(
            pair,
            golden_region=part.translate(pair.golden_region.start),
            actual=source,
            actual_region=inner,
            region=part.translate(pair.region.start),
        )
        for source, inner, part in blocks
    ]


def check_dtypes(goldens: Collection[str], actual: str) -> None:
    """Raise AlignmentError unless the golden parts are of one dtype, and of the same kind as the actual one."""
    if len(goldens) > 1:
        raise AlignmentError(f"its golden parts are of several types: {', '.join(sorted(goldens))}")
    for golden in goldens:
        if DTYPES[golden].kind is not DTYPES[actual].kind:
            raise AlignmentError(f"golden is {golden}, actual {actual}: values of different kinds")


def differs_only_in_size(golden: RankLabel, actual: RankLabel) -> bool:
    """Tell whether parts of two tensors can be compared as they lie: whole, of one kind, and without a layout."""
    plain = all(label.source.is_whole and not label.in_blocks and not label.record.layout for label in (golden, actual))
    return plain and DTYPES[golden.dtype].kind is DTYPES[actual.dtype].kind


def _check_summaries(pair: Pair, *, in_blocks: bool) -> None:
    kept = next((source.capture for source in pair.sources if not source.is_whole), "")
    by_row = pair.actual.places is not None  # any rows may be compared, and any slice of a side that is whole
    cut = any(
        region.shape[by_row:] != source.shape[by_row:]
        for source, region in ((pair.golden, pair.golden_region), (pair.actual, pair.actual_region))
        if not (by_row and source.is_whole)
    )
    if kept and (in_blocks or pair.more_golden or pair.more_actual or cut):
        raise AlignmentError(
            f"only the {kept} of a side was kept, of which no slice or sum can be compared; use --capture full"
        )


def _check_summands(pair: Pair) -> None:
    for side, sources in (
        ("golden", (pair.golden, *pair.more_golden)),
        ("actual", (pair.actual, *pair.more_actual)),
    ):
        if len({(source.dtype, source.shape) for source in sources}) > 1:
            raise AlignmentError(f"the summands of the {side} side have different dtypes or shapes")
