"""What the error of a label looks like: of the fits and places of its ranks what explains nearly all. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from aclcmp.orchestrator.compare.look import Look
from aclcmp.orchestrator.judge.findings import Hint
from aclcmp.orchestrator.judge.patterns import channels_of, rows_of
from aclcmp.orchestrator.judge.verdicts import WRONG, LabelVerdict
from aclcmp.orchestrator.judge.where import Along, Place, growth_of, place_of

EXPLAINS = 0.9
"""Share of the error energy that a hint must explain."""

_ROWS = {
    "one": "a wrong index, an unwritten slot of a cache, or one token's own path",
    "end": "padding, or a length that is off",
    "period": "tiles or pages of a kernel",
}
_CHANNELS = {
    "one": "one wrong weight or scale",
    "end": "padding, or an uneven slice",
    "stretch": "a head, an expert, a tile or a slice of the weights",
    "period": "tiles of a kernel, or groups of a quantisation",
}


def hints_of(label: LabelVerdict, looks: Mapping[int, Look]) -> tuple[Hint, ...]:
    """Return what explains at least 90 % of the error energy: for each rank its best fit, or else its place.

    Equal hints of several ranks are one. `looks` are by rank; ranks that are not wrong, or without a look, give none.
    """
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for verdict in label.ranks:
        look = looks.get(verdict.rank)
        if verdict.status not in WRONG or look is None:
            continue
        if look.fits and look.fits[0].explained >= EXPLAINS:
            fit = look.fits[0]
            found[fit.kind, fit.words][verdict.rank] = fit.explained
            continue
        for kind, place, suggestion in _places(rows_of([verdict]), channels_of([look])):
            found[kind, f"{place.words}: {suggestion}?"][verdict.rank] = place.share
    return tuple(
        Hint(label.key, tuple(sorted(shares)), kind, words, min(shares.values()))
        for (kind, words), shares in found.items()
    )


def _places(rows: Along | None, channels: Along | None) -> list[tuple[str, Place, str]]:
    found = []
    for along, suggestions in ((rows, _ROWS), (channels, _CHANNELS)):
        place = place_of(along) if along is not None else None
        if place is not None and along is not None and place.kind in suggestions and place.share >= EXPLAINS:
            kind = f"{place.kind} {along.noun}" if place.kind != "end" else f"last {along.noun}s"
            found.append((kind, place, suggestions[place.kind]))
    if rows is not None and place_of(rows) is None and (growth := growth_of(rows)) is not None:
        found.append(("growth with position", growth, "positions (RoPE), a cache, or a sum that drifts"))
    return found
