"""Hints at the cause of an error: the fits and places of its ranks that explain nearly all of it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.core.diagnosis import Hint, Look
from aclcmp.orchestrator.core.plan import RowNames
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.text import figure
from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.judge.error_patterns import channels_of, rows_of
from aclcmp.orchestrator.judge.error_places import beyond_noise, even_error, growth_of, place_of, start_of

EXPLAINS = 0.9
"""Share of the error energy that a hint must explain."""

_ROWS = {
    "one": "a wrong index, an unwritten slot of a cache, or one token's own path",
    "end": "padding, a length that is off, or a slot of the cache overwritten",
    "period": "tiles or pages of a kernel",
}
_CHANNELS = {
    "one": "one wrong weight or scale",
    "end": "padding, or an uneven slice",
    "stretch": "a head, an expert, a tile or a slice of the weights",
    "period": "tiles of a kernel, or groups of a quantisation",
}
_COARSE = (
    (3e-3, "TF32, bfloat16 or float16 on the way"),
    (0.15, "quantised weights or activations (int8, int4, float8)"),
)
"""Largest even error, and what may be its reason."""
_UNRELATED = 0.4
"""Largest cosine between golden and an error that has nothing to do with it."""


def hints_of(
    label: LabelVerdict,
    looks: Mapping[int, Look],
    noise: Mapping[int, float] | None = None,
    names: RowNames | None = None,
) -> tuple[Hint, ...]:
    """Return hints that explain at least 90 % of the error energy: for each rank its best fit, or else its place.

    Equal hints of several ranks become one. `looks` and `noise`, the relative error of right labels before it, are by
    rank; `names` are those of the rows. Only ranks that are wrong (if none is, those that drift) and have a look give
    some.
    """
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for verdict in label.differing:
        look = looks.get(verdict.rank)
        if verdict.status is Status.NONFINITE or look is None:
            continue
        if look.fits and look.fits[0].explained >= EXPLAINS:
            fit = look.fits[0]
            found[fit.kind, fit.words][verdict.rank] = fit.explained
            continue
        for kind, words, share in _places(verdict, look, (noise or {}).get(verdict.rank, 0.0), names):
            found[kind, words][verdict.rank] = share
    return tuple(
        Hint(label.key, tuple(sorted(shares)), kind, words, min(shares.values()))
        for (kind, words), shares in found.items()
    )


def _places(verdict: RankVerdict, look: Look, noise: float, names: RowNames | None) -> list[tuple[str, str, float]]:
    """Return what the places of an error suggest: kind, words and share of the error. Exact types have none."""
    if DTYPES[verdict.dtypes[0]].eps is None:
        return []
    sums = [(rows_of([verdict], names), _ROWS), (channels_of([look]), _CHANNELS)]
    places = [(along, place_of(along.beyond(noise)), causes) for along, causes in sums if along is not None]
    named = [
        (along.noun, place, causes[place.kind])
        for along, place, causes in places
        if place is not None and place.kind in causes and place.share >= EXPLAINS
    ]
    ones = [each for each in named if each[1].kind == "one"]
    if len(ones) == 2 and verdict.stats is not None:
        stats, words = verdict.stats, " and ".join(place.words for _, place, _ in ones)
        cause = f"one value, {stats.max_abs_d_y:.4g} where golden has {stats.max_abs_d_x:.4g}, clamped or overwritten"
        return [("one value", f"{words}: {cause}?", min(place.share for _, place, _ in ones))]
    if named:  # one row or channel says all: where along it the error is follows from its values
        return [
            (
                f"{place.kind} {noun}" if place.kind != "end" else f"last {noun}s",
                f"{place.words}: {cause}?",
                place.share,
            )
            for noun, place, cause in ones or named
        ]
    rows = sums[0][0]
    if rows is None or verdict.limits is None:
        return []
    if (start := start_of(rows, max(beyond_noise(noise), verdict.limits.warn))) is not None:
        cause = "a slot of the cache overwritten, or a window or length that ends there"
        return [("from a row on", f"{start.words}: {cause}?", start.share)]
    if any(place is not None for _, place, _ in places):
        return []
    if (growth := growth_of(rows)) is not None:
        cause = "positions (RoPE), a cache, or a sum that drifts"
        return [("growth with position", f"{growth.words}: {cause}?", growth.share)]
    return [] if look.fits or verdict.stats is None else _coarse(even_error(rows), verdict.stats, verdict.limits.warn)


def _coarse(error: float, stats: PairStats, least: float) -> list[tuple[str, str, float]]:
    """Return what an error suggests that is the same in all rows, and has nothing to do with golden."""
    if (stats.sum_xy - stats.sum_xx) ** 2 > _UNRELATED**2 * stats.sum_xx * stats.sum_dd:
        return []
    causes = [cause for most, cause in _COARSE if least < error <= most]
    words = f"the error is about the same in all rows, {figure(error)} of golden"
    return [("even error", f"{words}: {causes[0]}?", 1.0)] if causes else []
