"""Places of an error along one axis: from sums by row or by channel to a few words. Pure.

A place is named only where the error is large and golden is not: an error of the same relative size everywhere is
largest where golden is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.plan import RowNames

_BEYOND = 3.0
"""Factor of the noise within which an error is right."""
_MORE = 2.0
"""Factor by which places beyond the noise must be more wrong than those within."""
MOST = 0.9
"""Share of the error energy that a place must hold."""
_GOLDEN = 0.5
"""Largest share of golden's energy that may lie at the same places."""
_CONTRAST = 10.0
"""Factor by which places must be more wrong than others to be named though golden lies there too."""
_FEW = 8
"""A few places are at most an eighth of all; a stretch of neighbours may be half."""
_CLEAN = 0.99
"""Share of the error energy that a longer stretch must hold."""
_MOST_NAMED = 4
_PERIODS = (2, 4, 8, 16, 32, 64, 128)
_PARTS = 8
_GROWN = 8.0
"""Factor from the first eighth to the last from which an error grows; attention over ever more rows makes it 5."""
_STILL_GROWING = 1.4
"""The same from the middle to the last eighth."""
_LEAST_GROWING = 16
_FEWEST_RIGHT = 4
_BY_CHANCE = 0.02
"""Largest probability that so many right places before the first wrong one are chance."""
_AT_ONCE = 3.0
"""Factor by which the first errors must exceed all before."""
_NOTHING = 1e-3
"""Part of the largest error below which an error counts as none."""
_EVEN = 1.45
"""Factor between the 10 % and the 90 % quantile of an error up to which it is the same everywhere."""
_FEWEST_EVEN = 8

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AxisSums:
    """Sums along one axis of a whole tensor, in groups of `group` neighbours; `noun`: what one place is called."""

    noun: str
    group: int
    index: Ints
    """Sorted numbers of groups, shape (n,)."""
    sum_xx: Floats
    sum_dd: Floats
    names: RowNames | None = None
    """Names of the places, where they have some."""

    def beyond(self, noise: float) -> AxisSums:
        """Return the sums without the errors that are within the noise, relative to golden at their place.

        All stay where the other places are hardly more wrong: it is then chance which are beyond the noise.
        """
        size = np.maximum(self.sum_xx, np.median(self.sum_xx) if self.sum_xx.size else 0.0)
        right = self.sum_dd <= beyond_noise(noise) ** 2 * size
        if not noise or right.all() or not right.any():
            return self
        error = np.divide(self.sum_dd, size, out=np.zeros_like(size), where=(size > 0) & np.isfinite(size))
        if np.median(error[~right]) < _MORE**2 * np.median(error[right]):
            return self
        return replace(self, sum_dd=np.where(right, 0.0, self.sum_dd))


@dataclass(frozen=True, slots=True)
class Place:
    """A place of the error. `kind` is "one", "few", "stretch", "end", "start", "period" or "growth"."""

    kind: str
    words: str
    """E.g. "row 64 holds 98 % of it"."""
    share: float
    """Of the error energy."""


def beyond_noise(noise: float) -> float:
    """Return from which relative error on a place is wrong."""
    return _BEYOND * noise


def place_of(along: AxisSums) -> Place | None:
    """Return where the error is concentrated; None where it is spread, or where golden is what is concentrated."""
    known = np.isfinite(along.sum_dd).all() and np.isfinite(along.sum_xx).all()
    if len(along.index) < 2 or not known or not along.sum_dd.sum() > 0.0:
        return None
    few = _few(along)
    return few if few and few.kind != "few" else _period(along) or few or _stretch(along)


def growth_of(along: AxisSums) -> Place | None:
    """Return how the error grows with the place: relative to golden, from each eighth of the places to the next."""
    if len(along.index) < _LEAST_GROWING or not np.isfinite(along.sum_dd).all() or not (along.sum_xx > 0).all():
        return None
    parts = np.arange(len(along.index)) * _PARTS // len(along.index)
    error = np.sqrt(np.bincount(parts, along.sum_dd) / np.bincount(parts, along.sum_xx))
    grown = error[-1] >= _GROWN * error[0] > 0.0 and error[-1] >= _STILL_GROWING * error[_PARTS // 2 - 1]
    if not grown or not (error[1:] >= 0.9 * error[:-1]).all():
        return None
    shares = np.cumsum(along.sum_dd[::-1]) / along.sum_dd.sum()
    last = int(np.searchsorted(shares, MOST)) + 1
    if _share(along.sum_xx, np.arange(len(along.index) - last, len(along.index))) > 0.75:
        return None
    sizes = f"{error[0]:.1g} of golden in the first eighth, {error[-1]:.1g} in the last"
    words = f"the error grows with the {along.noun}: {sizes}"
    return Place("growth", words, float(shares[last - 1]))


def start_of(along: AxisSums, right: float) -> Place | None:
    """Return from which place on errors are above `right`, where they come at once and not by chance so late."""
    count = len(along.index)
    if count < _LEAST_GROWING or not np.isfinite(along.sum_dd).all() or not (along.sum_xx > 0).all():
        return None
    error = np.sqrt(along.sum_dd / np.maximum(along.sum_xx, np.median(along.sum_xx)))
    wrong = error > max(right, float(error.max()) * _NOTHING)
    first = int(np.argmax(wrong))
    if not wrong.any() or first < _FEWEST_RIGHT or (1 - first / count) ** int(wrong.sum()) > _BY_CHANCE:
        return None
    if float(np.median(error[first : first + _FEWEST_RIGHT])) < _AT_ONCE * error[:first].max():
        return None
    number = int(along.index[first]) * along.group
    share = _share(along.sum_dd, np.arange(first, count))
    before = _name(along, number, number)
    words = f"no {along.noun} before {before} is wrong, {int(wrong.sum()):,} of the {count - first:,} from there on are"
    return Place("start", words, share)


def even_error(along: AxisSums) -> float:
    """Return the relative error of the median place where it is about the same in all places; 0 where it is not."""
    known = along.sum_xx > 0
    if known.sum() < _FEWEST_EVEN or not np.isfinite(along.sum_dd[known]).all():
        return 0.0
    low, middle, high = np.quantile(np.sqrt(along.sum_dd[known] / along.sum_xx[known]), (0.1, 0.5, 0.9)).tolist()
    return float(middle) if high <= _EVEN * low else 0.0


def _share(sums: Floats, places: Ints) -> float:
    total = float(sums.sum())
    return float(sums[places].sum()) / total if total else 0.0


def _few(along: AxisSums) -> Place | None:
    """Return a few places that hold most of the error, wherever they are; None where there are none."""
    order = np.argsort(-along.sum_dd, kind="stable")
    shares = np.cumsum(along.sum_dd[order]) / along.sum_dd.sum()
    count = int(np.searchsorted(shares, MOST)) + 1
    if count > max(len(order) // _FEW, 1) or len(order) < 4:
        return None
    chosen = np.sort(order[:count])
    if _golden_is_there(along, chosen, _GOLDEN):
        return None
    low, high = int(chosen[0]), int(chosen[-1])
    if high - low + 1 <= 2 * count:  # holes in a stretch are chance
        return _place_in_words(along, np.arange(low, high + 1), "one" if count == 1 else "stretch")
    return _place_in_words(along, chosen, "few")


def _stretch(along: AxisSums) -> Place | None:
    """Return a stretch of up to half of the places with nearly all of the error; None if there is none."""
    energy = np.concatenate([[0.0], np.cumsum(along.sum_dd)]) / along.sum_dd.sum()
    left = (1 - _CLEAN) / 2
    low = int(np.searchsorted(energy, left, side="right")) - 1
    high = min(int(np.searchsorted(energy, 1 - left)), len(along.index))
    chosen = np.arange(low, high)
    if 2 * len(chosen) > len(along.index) or _golden_is_there(along, chosen, 2 * _GOLDEN * MOST):
        return None
    return _place_in_words(along, chosen, "stretch") if _contrast(along, chosen) > 3 else None


def _golden_is_there(along: AxisSums, chosen: Ints, most: float) -> bool:
    """Tell whether the places hold more of golden than `most`, and are hardly more wrong than the others."""
    return _share(along.sum_xx, chosen) > most and _contrast(along, chosen) < _CONTRAST


def _contrast(along: AxisSums, chosen: Ints) -> float:
    """Return how many times larger the relative error is in some places than in the others."""
    inside, outside = _relative(along, chosen), _relative(along, np.setdiff1d(np.arange(len(along.index)), chosen))
    return inside / outside if outside else np.inf


def _relative(along: AxisSums, places: Ints) -> float:
    size = float(along.sum_xx[places].sum())
    error = float(along.sum_dd[places].sum())
    return (error / size) ** 0.5 if size else (0.0 if error == 0.0 else np.inf)


def _place_in_words(along: AxisSums, chosen: Ints, kind: str) -> Place:
    share = _share(along.sum_dd, chosen)
    if kind == "stretch" and chosen[-1] == len(along.index) - 1 and chosen[0] > 0:
        kind = "end"
    first = along.index[chosen] * along.group
    last = first + along.group - 1
    runs = list(_runs(first, last))
    plural = len(runs) > 1 or runs[0][0] != runs[0][1]
    names = ", ".join(_name(along, a, b) for a, b in runs[:_MOST_NAMED])
    if len(runs) > _MOST_NAMED:
        names += f" ... ({len(chosen):,} of {len(along.index):,})"
    if along.names is None:
        names = f"{along.noun}{'s' * plural} {names}"
    return Place(kind, f"{names} {'hold' if plural else 'holds'} {_percent(share)} of it", share)


def _name(along: AxisSums, first: int, last: int) -> str:
    if along.names is not None:
        return along.names.words(first, last)
    return f"{first}-{last}" if first != last else f"{first}"


def _percent(share: float) -> str:
    return "all" if share > 0.9995 else f"{100 * share:.0f} %" if share < 0.985 else f"{100 * share:.1f} %"


def _runs(first: Ints, last: Ints) -> Iterator[tuple[int, int]]:
    begin = 0
    for i in range(1, len(first) + 1):
        if i == len(first) or first[i] != last[i - 1] + 1:
            yield int(first[begin]), int(last[i - 1])
            begin = i


def _period(along: AxisSums) -> Place | None:
    """Return a few residues of the place's number by a power of two that hold most of the error; None without any.

    Tiles of a kernel and groups of a quantisation make such patterns.
    """
    if along.group != 1 or along.names is not None:  # of rows with names no tile of a kernel is known
        return None
    found: list[tuple[float, Place]] = []
    for period in (period for period in _PERIODS if len(along.index) >= 4 * period):
        residue = along.index % period
        error: Floats = np.bincount(residue, along.sum_dd, period).astype(np.float64)
        golden: Floats = np.bincount(residue, along.sum_xx, period).astype(np.float64)
        order = np.argsort(-error, kind="stable")
        shares = np.cumsum(error[order]) / error.sum()
        count = int(np.searchsorted(shares, MOST)) + 1
        chosen = np.sort(order[:count])
        if count <= max(period // _FEW, 1) and _share(golden, chosen) <= 1.2 * max(count / period, 1 / _FEW):
            there = np.isin(residue, chosen)
            if np.median(along.sum_dd[there]) <= 3 * along.sum_dd[~there].mean():
                continue  # a few places anywhere have such residues
            share = float(shares[count - 1])
            names = ", ".join(map(str, chosen[:_MOST_NAMED]))
            words = f"{along.noun}s {names} of every {period} hold {_percent(share)} of it"
            found.append((count / period, Place("period", words, share)))
    return min(found, key=lambda item: item[0])[1] if found else None
