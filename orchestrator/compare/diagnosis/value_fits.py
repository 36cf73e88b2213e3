"""Fits that change values in place: zeros, factors, offsets, limits, rounding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.compare.diagnosis.fit_trial import GOOD, PER_PARAMETER, Candidate, Floats, Trial
from aclcmp.orchestrator.compare.diagnosis.rounding import LARGEST, NARROWER, rounder
from aclcmp.orchestrator.core.diagnosis import numbers_text

_CLOSE = 0.02
_FEWEST_HITS = 4
_DROPPED = (0.01, 0.9)
_PROBED = 256
_MOST_ALONE = 8
"""Most values that count as a few."""


def values(trial: Trial, scale: float = 1.0) -> Iterator[Candidate]:
    """Yield candidates in the order of their complexity; texts show the trial's values times `scale`."""
    yield from _constant(trial, scale)
    yield from _few(trial, scale)
    yield from _factor(trial)
    yield from _offset(trial, scale)
    yield from _clipping(trial, scale)
    if scale == 1.0:
        yield from _rounding(trial)
    yield from _zeros(trial)
    yield from _constant_lines(trial)
    yield from _by_line(trial)


def counts(trial: Trial, scale: float = 1.0) -> Iterator[Candidate]:
    """Yield candidates for integers, as `values` does: ids and positions have no factors, limits or round-off."""
    yield from _constant(trial, scale)
    yield from _few(trial, scale)
    yield from _offset(trial, scale)
    yield from _zeros(trial)


def _constant(trial: Trial, scale: float) -> Iterator[Candidate]:
    first = trial.y.flat[0]
    if (trial.y == first).all() and trial.x.min() != trial.x.max():
        words = "every value is zero: was it never written?"
        if first != 0.0:
            words = f"every value is {first * scale:.4g}: was it never written, or one value spread over all?"
        yield Candidate("constant" if first else "zeros", 0, np.full_like(trial.y, first), words, exact=True)


def _few(trial: Trial, scale: float) -> Iterator[Candidate]:
    """Yield golden with a few values replaced by actual's."""
    sizes = np.abs(trial.d).ravel()
    most = min(_MOST_ALONE, trial.x.size // (4 * PER_PARAMETER))
    if not most:
        return
    order = np.argpartition(-sizes, most - 1)[:most]
    order = order[np.argsort(-sizes[order], kind="stable")]
    energy = np.cumsum(sizes[order] ** 2)
    count = int(np.searchsorted(energy, GOOD * trial.energy)) + 1
    if count > most:
        return
    chosen = order[:count]
    values = trial.x.copy()
    values.flat[chosen] = trial.y.flat[chosen]

    def words() -> str:
        x, y = (side.flat[chosen[0]] * scale for side in (trial.x, trial.y))
        smaller = all(abs(trial.y.flat[each]) < abs(trial.x.flat[each]) for each in chosen)
        cause = "clamped, saturated or overwritten?" if smaller else "overwritten, or a bit turned?"
        named = f"{y:.4g} where golden has {x:.4g}"
        if count > 1:
            return f"{count} values alone are others, the worst {named}: {cause}"
        row, channel = divmod(int(chosen[0]), trial.x.shape[-1])
        place = "" if trial.cut else f" (row {row}, channel {channel})"
        return f"one value alone{place} is another, {named}: {cause}"

    yield Candidate("one value" if count == 1 else "few values", 2 if count == 1 else 4, values, words)


def _factor(trial: Trial) -> Iterator[Candidate]:
    weights = trial.even if trial.noise else 1.0
    xx = float((weights * trial.x * trial.x).sum())
    if xx > 0.0:
        factor = float((weights * trial.x * trial.y).sum()) / xx
        if factor != 0.0:
            yield Candidate("scale", 1, factor * trial.x, factor_words(factor))


def factor_words(factor: float) -> str:
    """Say what a factor of all values suggests."""
    for times in range(2, 65):
        if abs(factor / times - 1) < _CLOSE / times:
            if times == 2:
                return "every value is twice golden's: a reduction or an addition done twice?"
            return f"every value is {times} times golden's: added up {times} times, e.g. over ranks that each hold all?"
        if abs(factor * times - 1) < _CLOSE / times:
            share = "half" if times == 2 else f"1/{times} of"
            return f"every value is {share} golden's: averaged over {times} instead of summed, or a reduction missing?"
    if abs(factor + 1) < _CLOSE:
        return "every value is golden's with the sign turned"
    digits = next((digits for digits in range(3, 7) if float(f"{factor:.{digits}g}") != 1.0), 0)
    if not digits:
        return ""
    return f"every value is {factor:.{digits}g} times golden's: a factor wrong, missing or applied twice?"


def _offset(trial: Trial, scale: float) -> Iterator[Candidate]:
    offset = float(np.average(trial.d, weights=trial.even if trial.noise else None))
    if offset:
        words = f"{offset * scale:.3g} is added to every value: a constant added, missing or added twice?"
        yield Candidate("offset", 1, trial.x + offset, words)


def _clipping(trial: Trial, scale: float) -> Iterator[Candidate]:
    """Yield golden clipped at actual's extremes, if several of actual's values are there and golden goes beyond."""
    x, y = trial.x, trial.y
    low, high = float(y.min()), float(y.max())
    if low == high:
        return
    above, below = (y == high) & (x > high), (y == low) & (x < low)
    cut_high, cut_low = int(above.sum()) >= _FEWEST_HITS, int(below.sum()) >= _FEWEST_HITS
    if not (cut_high or cut_low):
        return
    values = np.clip(x, low if cut_low else None, high if cut_high else None)

    def words() -> str:
        if low == 0.0 and not cut_high:
            return "what is negative in golden is 0: an activation (ReLU) that golden has not?"
        if cut_low and cut_high and abs(low + high) <= 1e-6 * high:
            limit, where = high, "in size"
        else:
            limit, where = (high, "from above") if cut_high else (low, "from below")
            if cut_low and cut_high:
                return f"values are cut off at {low * scale:.4g} and {high * scale:.4g}: saturation, or a clamp?"
        types = [name for name, largest in LARGEST.items() if abs(abs(limit) * scale / largest - 1) < 1e-3]
        what = f"saturation in {types[0]}?" if types else "saturation, or a clamp?"
        return f"values are cut off at {limit * scale:.6g} {where}: {what}"

    yield Candidate("saturation", 2, values, words, exact=True)


def _rounding(trial: Trial) -> Iterator[Candidate]:
    """Yield golden rounded to a narrower type, if it can represent all of actual's values but not golden's.

    Each actual value may be either of the two neighbours of golden's: the other kernel's round-off decides between
    them.
    """
    stored = DTYPES[trial.actual_dtype]
    if stored.kind is not Kind.FLOAT or stored.eps is None:
        return
    for name in NARROWER:
        eps = DTYPES[name].eps
        if eps is None or eps <= stored.eps:
            continue
        to = rounder(name)
        first = trial.y.ravel()[:_PROBED]
        with np.errstate(all="ignore"):
            if not (to(first) == first).all():  # what most trials end with, at a fraction of the work
                continue
            near = to(trial.x)
            if not (to(trial.y) == trial.y).all() or (near == trial.x).mean() > 0.5:
                continue
            other = to(near + np.sign(trial.x - near) * np.ldexp(eps, np.frexp(near)[1] - 1))
        best = np.where(np.abs(trial.y - near) <= np.abs(trial.y - other), near, other)
        words = f"every value is one of {name}, golden's are not: rounded to {name} on the way?"
        yield Candidate("down-cast", 2, np.where(np.isfinite(best), best, trial.x), words, exact=True)
        return


def _zeros(trial: Trial) -> Iterator[Candidate]:
    """Yield golden with actual's zeros: in rows, in columns, or here and there."""
    zero = (trial.y == 0.0) & (trial.x != 0.0)
    count = int(zero.sum())
    if not count or count == zero.size:
        return
    predicted = np.where(zero, 0.0, trial.x)
    table = zero.reshape(-1, zero.shape[-1])
    rows, columns = np.flatnonzero(table.all(1)), np.flatnonzero(table.all(0))
    where = "here and there"
    if len(rows) * table.shape[1] >= 0.9 * count:
        where = "in some rows" if trial.cut else f"in row{'s' * (len(rows) > 1)} {numbers_text(rows)}"
    elif len(columns) * table.shape[0] >= 0.9 * count:
        where = f"in channel{'s' * (len(columns) > 1)} {numbers_text(columns)}"
    yield Candidate("zeros", 3, predicted, f"zeros {where}: not written, or masked?", exact=True)
    share = count / zero.size
    if _DROPPED[0] < share < _DROPPED[1] and trial.x.size >= 256:
        words = f"{share:.0%} of the values are zero, the others larger by 1/(1 - {share:.2f}): dropout left on?"
        yield Candidate("dropout", 3, predicted / (1 - share), words, exact=True)


def _constant_lines(trial: Trial) -> Iterator[Candidate]:
    """Yield golden with actual's rows or channels that hold one nonzero value each, while golden's vary."""
    flat = trial.rows_and_columns()
    for axis, line, lines, cause in (
        (0, "channel", "rows", "weights zero or never loaded, so that the bias is left?"),
        (1, "row", "channels", "never written, or one value spread over all?"),
    ):
        if flat.x.shape[axis] < _FEWEST_HITS:
            continue
        first = flat.y.take([0], axis)
        constant = (flat.y == first).all(axis, keepdims=True) & (flat.x != flat.x.take([0], axis)).any(
            axis, keepdims=True
        )
        numbers = np.flatnonzero(constant)
        if len(numbers) > 0 and first[constant].any() and not (line == "row" and trial.cut):
            predicted = np.where(constant, flat.y, flat.x).reshape(trial.x.shape)
            named = f"{line}{'s' * (len(numbers) > 1)} {numbers_text(numbers)}"
            holds = "hold one value each" if len(numbers) > 1 else "holds one value"
            yield Candidate(
                f"constant {line}s", 4, predicted, f"{named} {holds}, the same in all {lines}: {cause}", exact=True
            )


def _by_line(trial: Trial) -> Iterator[Candidate]:
    """Yield golden with a factor or an offset for each row, or for each channel."""
    flat = trial.rows_and_columns()
    for axis, line, cause, added in (
        (1, "row", "a norm, a softmax or a scale by token", "a mean by row not subtracted, or subtracted twice"),
        (
            0,
            "channel",
            "weights of a norm, or scales by channel, wrong",
            "a bias missing, twice or another, or a mean subtracted before a norm's weights",
        ),
    ):
        if flat.x.shape[axis] < PER_PARAMETER or flat.x.shape[1 - axis] < 2:
            continue
        weight = trial.weights**2
        xx, xy = ((weight * flat.x * side).sum(axis, keepdims=True) for side in (flat.x, flat.y))
        factor = np.divide(xy, xx, out=np.ones_like(xy), where=xx > 0)
        offset = (weight * flat.d).sum(axis, keepdims=True) / weight.sum(axis, keepdims=True)

        def like_trial(values: Floats) -> Floats:
            return values.reshape(trial.x.shape)

        least, largest = f"{factor.min():.3g}", f"{factor.max():.3g}"
        words = f"each {line} is golden's times a factor of its own ({least} to {largest}): {cause}?"
        yield Candidate(f"scale by {line}", 6, like_trial(factor * flat.x), words if least != largest else "")
        yield Candidate(
            f"offset by {line}",
            6,
            like_trial(flat.x + offset),
            f"each {line} has a constant of its own added: {added}?",
        )
