"""Reference statistics of a pair in plain float64 numpy, and the bounds within which kernels must agree with them."""

import dataclasses
import math

import ml_dtypes
import numpy as np

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.compare.kernels.tolerance import tolerance
from aclcmp.orchestrator.compare.pair import row_group
from aclcmp.orchestrator.core.regions import Region
from aclcmp.orchestrator.core.stats import PairStats, RowSums

EXACT_FIELDS = [
    field.name
    for field in dataclasses.fields(PairStats)
    if not field.name.startswith(("sum_", "n_over_")) and field.name not in ("rows", "max_rel_d")
]


def components(bits: np.ndarray, name: str) -> np.ndarray:
    """View complex elements as two neighbours along the last axis."""
    if DTYPES[name].kind is not Kind.COMPLEX:
        return bits
    part = np.dtype(f"<f{bits.itemsize // 2}")
    return np.ascontiguousarray(bits).reshape(bits.shape or (1,)).view(part)


def values(bits: np.ndarray, name: str) -> np.ndarray:
    """Decode to float64 as ml_dtypes does."""
    bits = components(bits, name)
    if DTYPES[name].kind is Kind.FLOAT and bits.dtype.kind == "u":
        bits = bits.view(getattr(ml_dtypes, name))
    with np.errstate(all="ignore"):  # signalling NaN
        return bits.astype(np.float64)


def ordinals(bits: np.ndarray, name: str) -> np.ndarray:
    """Number the representable values of a float type, as Python integers."""
    bits = components(bits, name)
    raw = bits.view(f"u{bits.itemsize}").astype(object)
    if name == "float8_e8m0fnu":
        return raw
    sign = 1 << (8 * bits.itemsize - 1)
    return np.where(raw >= sign, sign - raw, raw)


def nonfinite_class(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), 1, 0) + np.where(x == np.inf, 2, 0) + np.where(x == -np.inf, 3, 0)


def mantissa_bits(x: np.ndarray, x_name: str, y_name: str) -> int:
    """Count, bit by bit, the leading mantissa bits that finite values use in the type in which they are compared."""
    if DTYPES[x_name].kind in (Kind.INT, Kind.BOOL):
        return 0
    wide = any(name in ("float64", "complex128") for name in (x_name, y_name))
    width = 52 if wide else 23
    bits: np.ndarray = x.astype(np.float64 if wide else np.float32).view(np.uint64 if wide else np.uint32)
    return max((n + 1 for n in range(width) if (bits >> (width - 1 - n) & 1).any()), default=0)


def reference_stats(
    x_bits: np.ndarray,
    y_bits: np.ndarray,
    x_name: str,
    y_name: str,
    whole_shape: tuple[int, ...],
    region: Region,
    limit_factor: float = 1.0,
    lowest: tuple[float, float] | None = None,
) -> PairStats:
    """Compare two arrays of the region's shape; the limits behind the counts n_over_* are times `limit_factor`.

    `lowest` are the values of both sides up to which they count as -inf in a mask, by default those of their types.
    """
    if region.size == 0:
        return PairStats.empty()
    with np.errstate(all="ignore"):
        lowest = lowest or (DTYPES[x_name].lowest, DTYPES[y_name].lowest)
        return _reference_stats(x_bits, y_bits, x_name, y_name, whole_shape, region, limit_factor, lowest)


def _reference_stats(x_bits, y_bits, x_name, y_name, whole_shape, region, limit_factor, lowest):
    x, y = values(x_bits, x_name), values(y_bits, y_name)
    exact = DTYPES[x_name].kind in (Kind.INT, Kind.BOOL)
    finite = np.isfinite(x) & np.isfinite(y)
    class_x, class_y = nonfinite_class(x), nonfinite_class(y)
    masked = (x <= lowest[0]) & (y <= lowest[1]) & (not exact)
    finite &= ~masked
    class_x, class_y = np.where(masked, 3, class_x), np.where(masked, 3, class_y)
    same_class = (class_x == class_y) & (class_x > 0)
    if exact:
        equal = np.asarray(x_bits.astype(object) == y_bits.astype(object)).astype(bool)
    else:
        equal = (finite & (x == y) & (np.signbit(x) == np.signbit(y))) | (same_class & ~masked) | (masked & (x == y))

    d = np.abs(y - x)
    rtol, atol = tolerance(DTYPES[x_name], DTYPES[y_name])
    size = np.abs(x) * limit_factor

    def over(relative: float, absolute: float) -> int:
        return int((finite & (d > absolute * limit_factor + relative * size)).sum())

    fx, fy = x[finite], y[finite]
    fd = fy - fx
    rel = np.abs(fd / fx)[fx != 0]
    max_ulp = -1
    if x_name == y_name and not exact:
        distance = np.asarray(abs(ordinals(x_bits, x_name) - ordinals(y_bits, y_name)), object)
        max_ulp = min(max(distance[finite].tolist(), default=0), 2**63 - 1)

    max_abs_d, index, at_x, at_y = 0.0, -1, 0.0, 0.0
    if fd.size:
        max_abs_d = float(d[finite].max())
        position = int(np.flatnonzero(np.where(finite, d, -1.0).ravel() == max_abs_d)[0])
        at_x, at_y = float(x.ravel()[position]), float(y.ravel()[position])
        per_element = x.size // region.size
        place = np.unravel_index(position // per_element, region.shape)
        whole_place = tuple(int(i) + start for i, start in zip(place, region.start, strict=True))
        index = int(np.ravel_multi_index(whole_place, whole_shape)) if whole_shape else 0

    return PairStats(
        n=x.size,
        n_equal=int(equal.sum()),
        n_finite=int(finite.sum()),
        sum_x=float(fx.sum()),
        sum_y=float(fy.sum()),
        sum_xx=float((fx * fx).sum()),
        sum_yy=float((fy * fy).sum()),
        sum_xy=float((fx * fy).sum()),
        sum_d=float(fd.sum()),
        sum_dd=float((fd * fd).sum()),
        sum_abs_d=float(np.abs(fd).sum()),
        max_abs_d=max_abs_d,
        max_abs_d_index=index,
        max_abs_d_x=at_x,
        max_abs_d_y=at_y,
        min_x=float(fx.min(initial=np.inf)),
        max_x=float(fx.max(initial=-np.inf)),
        min_y=float(fy.min(initial=np.inf)),
        max_y=float(fy.max(initial=-np.inf)),
        sum_rel_d=float(rel.sum()),
        max_rel_d=float(rel.max(initial=0.0)),
        n_over_1k=over(1e-3, 0.0),
        n_over_5k=over(5e-3, 0.0),
        n_over_tolerance=int((~equal).sum()) if exact else over(rtol, atol),
        max_ulp=max_ulp,
        nan_x=int((class_x == 1).sum()),
        posinf_x=int((class_x == 2).sum()),
        neginf_x=int((class_x == 3).sum()),
        nan_y=int((class_y == 1).sum()),
        posinf_y=int((class_y == 2).sum()),
        neginf_y=int((class_y == 3).sum()),
        n_nonfinite_equal=int(same_class.sum()),
        mantissa_x=mantissa_bits(fx, x_name, y_name),
        mantissa_y=mantissa_bits(fy, x_name, y_name),
        rows=reference_rows(np.where(finite, x, 0.0), np.where(finite, y, 0.0), whole_shape, region),
    )


def reference_rows(x: np.ndarray, y: np.ndarray, whole_shape: tuple[int, ...], region: Region) -> RowSums:
    group = row_group(whole_shape)
    numbers = np.zeros(1, np.int64)
    if len(whole_shape) > 1:
        grid = np.indices(region.shape[:-1]).reshape(len(whole_shape) - 1, -1)
        starts = np.array(region.start[:-1]).reshape(-1, 1)
        numbers = np.ravel_multi_index(tuple(grid + starts), whole_shape[:-1]) // group
    index, place = np.unique(numbers, return_inverse=True)
    sum_xx, sum_dd = np.zeros(index.size), np.zeros(index.size)
    np.add.at(sum_xx, place, (x**2).reshape(numbers.size, -1).sum(1))
    np.add.at(sum_dd, place, ((y - x) ** 2).reshape(numbers.size, -1).sum(1))
    return RowSums(group, index, sum_xx, sum_dd)


def assert_close(found: float, expected: float, scale: float, name: str) -> None:
    """Check agreement to 1e-6 of the sum's natural scale; below 1e-300 float64 itself loses digits."""
    if found == expected or (math.isnan(found) and math.isnan(expected)):
        return
    assert abs(found - expected) <= 1e-6 * scale + 1e-300, f"{name}: {found!r}, expected {expected!r}, scale {scale!r}"


def assert_agree(found: PairStats, expected: PairStats, abs_x: float, abs_y: float) -> None:
    """Check every field; `abs_x` and `abs_y` are the sums of |x| and |y|."""
    for name in EXACT_FIELDS:
        assert getattr(found, name) == getattr(expected, name), (
            f"{name}: {getattr(found, name)}, expected {getattr(expected, name)}"
        )
    scales = {
        "sum_x": abs_x,
        "sum_y": abs_y,
        "sum_xx": expected.sum_xx,
        "sum_yy": expected.sum_yy,
        "sum_xy": math.sqrt(expected.sum_xx) * math.sqrt(expected.sum_yy),
        "sum_d": expected.sum_abs_d,
        "sum_dd": expected.sum_dd,
        "sum_abs_d": expected.sum_abs_d,
        "sum_rel_d": expected.sum_rel_d,
        "max_rel_d": expected.max_rel_d,
    }
    for name, scale in scales.items():
        assert_close(getattr(found, name), getattr(expected, name), scale, name)
    if expected.n:
        assert found.rows.group == expected.rows.group
    assert found.rows.index.tolist() == expected.rows.index.tolist()
    for name in ("sum_xx", "sum_dd"):
        sums = zip(getattr(found.rows, name).tolist(), getattr(expected.rows, name).tolist(), strict=True)
        for row, (found_sum, expected_sum) in enumerate(sums):
            assert_close(found_sum, expected_sum, expected_sum, f"rows.{name}[{row}]")
