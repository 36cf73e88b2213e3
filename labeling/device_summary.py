"""Summaries of tensors on an accelerator, computed there by torch operations: only the summary is copied to the host.

The same as `shard.summarise` computes: digests and counts bit by bit, sums up to rounding in float64. Integers
of 64 bits wrap around as in C, and what is shifted is masked, since torch has no unsigned shifts.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.digest import BEYOND, BLOCK_STEP, FIRST, GOLDEN, SECOND, WORDS, keys, mixed
from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.row_summaries import VERSION, projection
from aclcmp.labeling.shard.summarise import AT_ONCE, WINDOW, WINDOW_LINES, random_words
from aclcmp.labeling.shard.tensor_summary import ROW_SKETCH_SIZE, SKETCH_SIZE, head, row_groups, rows_per_sketch

_LOW = 0xFFFFFFFF
_WINDOWS = 4
"""Times AT_ONCE values are taken at a time; their float64 take 8 MiB, and the steps of a sketch some times as much."""
_Bytes = npt.NDArray[np.uint8]
_unfit: set[tuple[str, str]] = set()
"""Types of devices, and dtypes, for which float64 or another operation that is needed is not there."""


def summarise_there(values: Any, dtype: str, rows: int, *, sketch: bool) -> _Bytes | None:
    """Return the packed summary of a dense, not empty tensor, computed on its device; None where that is not possible.

    With `rows` it is that of each of so many rows (see `row_summaries`), else of the tensor (see `tensor_summary`).
    Beside the tensor it takes some 100 MiB of the device, or some times a row.
    """
    torch = sys.modules["torch"]
    if (values.device.type, dtype) in _unfit:
        return None
    try:
        with torch.no_grad():
            packed = _rows(torch, values, dtype, rows, sketch) if rows else _tensor(torch, values, dtype, sketch)
            numbers: npt.NDArray[np.float64] = packed.cpu().numpy()
    except (RuntimeError, TypeError) as error:  # of an operation; of MPS, which has no float64
        if "memory" not in str(error):
            _unfit.add((values.device.type, dtype))
        return None
    return numbers.reshape(-1).view(np.uint8)


def _rows(torch: Any, values: Any, dtype: str, rows: int, sketch: bool) -> Any:
    """Return the table of `RowSummaries`."""
    values = _components(torch, values).reshape(rows, -1)
    step = max(_WINDOWS * AT_ONCE // values.shape[1], 1)
    parts = [_some_rows(torch, part, dtype, sketch) for part in values.split(step)]
    return torch.cat(parts)


def _some_rows(torch: Any, values: Any, dtype: str, sketch: bool) -> Any:
    lanes = _lanes(torch, _words(torch, values, dtype), 0)
    if dtype == "uint64":
        lanes[:, 0] += torch.where((values.view(torch.int64) < 0).any(dim=1), _signed(_mixed_beyond()), 0)
    finite, columns, places = _moments(torch, _float64(torch, values, dtype), 0)
    version = torch.full_like(columns[0], VERSION)
    table = [version, *columns, *_halves(torch, lanes[:, 0], lanes[:, 1], places)]
    if sketch:
        order, signs = _projection(values.shape[1], values.device)
        padded = torch.nn.functional.pad(finite, (0, order.numel() - finite.shape[1]))
        table += list((padded[:, order] * signs).sum(dim=1).T)
    return torch.stack(table, dim=1)


def _tensor(torch: Any, values: Any, dtype: str, sketch: bool) -> Any:
    """Return the numbers of a packed `TensorSummary`."""
    shape = tuple(values.shape)
    group, groups = row_groups(shape)
    flat = _components(torch, values).reshape(-1)
    stretch = group * (flat.numel() // values.numel()) * (shape[-1] if shape else 1)
    together = rows_per_sketch(groups)
    zeros = torch.zeros(groups + SKETCH_SIZE * sketch, dtype=torch.float64, device=flat.device)
    squares, projected = zeros[:groups], zeros[groups:]
    buckets = torch.zeros(-(-groups // together) * ROW_SKETCH_SIZE * sketch, dtype=torch.float64, device=flat.device)
    found: list[Any] = []
    each = 8 if DTYPES[dtype].kind in (Kind.INT, Kind.BOOL) else flat.element_size()  # bytes in the digest's words
    lanes: Any = 0
    for start in range(0, flat.numel(), _WINDOWS * AT_ONCE):
        window = flat[start : start + _WINDOWS * AT_ONCE]
        lanes = lanes + _lanes(torch, _words(torch, window[None], dtype), start * each // (8 * WORDS))
        finite, columns, places = _moments(torch, _float64(torch, window[None], dtype), start)
        found.append(torch.stack([*columns, places.view(torch.float64)]))
        finite = finite[0]
        for at, part in _stretches(finite.square(), start, stretch):
            squares[at : at + len(part)] += part.sum(dim=1)
        if sketch:
            lines = -(-finite.numel() // SKETCH_SIZE)
            order, signs = _tensor_projection(torch, start // AT_ONCE, lines, flat.device)
            signed = torch.nn.functional.pad(finite, (0, signs.numel() - finite.numel())) * signs
            projected += signed.reshape(lines, SKETCH_SIZE).gather(1, order).sum(dim=0)
            element = torch.arange(start, start + finite.numel(), device=flat.device)
            bucket = element // (stretch * together) * ROW_SKETCH_SIZE + element % ROW_SKETCH_SIZE
            buckets.index_add_(0, bucket, signed[: finite.numel()])
    every = torch.cat(found, dim=1)
    counts, sums, least, most = every[:3].sum(dim=1), every[3:4].sum(dim=1), every[5].min(), every[6].max()
    places = every[7].view(torch.int64).sum()
    if dtype == "uint64":
        lanes[:, 0] += torch.where((flat.view(torch.int64) < 0).any(), _signed(_mixed_beyond()), 0)
    digests = torch.stack(_halves(torch, lanes[0, :1], lanes[0, 1:], places[None]))[:, 0]
    known, sizes = head(flat.numel(), group, groups, sketch)
    numbers = [counts, sums, squares.sum()[None], least[None], most[None], digests]
    ends = (torch.tensor(each, dtype=torch.float64, device=flat.device) for each in (known, sizes))
    return torch.cat([next(ends), *numbers, next(ends), squares, projected, buckets])


def _stretches(values: Any, start: int, stretch: int) -> list[tuple[int, Any]]:
    """Return values from element `start` on as whole and cut stretches: (number of the first, [stretches, values])."""
    before = min(-start % stretch, len(values))
    tail = (len(values) - before) % stretch
    middle = values[before : len(values) - tail]
    first = -(-start // stretch)
    parts = [
        (start // stretch, values[None, :before]),
        (first, middle.reshape(-1, stretch)),
        (first + len(middle) // stretch, values[None, len(values) - tail :]),
    ]
    return [(at, part) for at, part in parts if part.numel()]


def _moments(torch: Any, values: Any, start: int) -> tuple[Any, list[Any], Any]:
    """Return values of [rows, n] with zeros for those that are not finite; counts, sums and extremes; and places.

    Columns have the shape (rows,). Rows begin with element number `start`.
    """
    kinds = torch.isnan(values), values == torch.inf, values == -torch.inf
    odd = kinds[0] | kinds[1] | kinds[2]
    least = torch.where(odd, torch.inf, values).amin(dim=1)
    most = torch.where(odd, -torch.inf, values).amax(dim=1)
    finite = torch.where(odd, 0.0, values)
    places = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    at, place = odd.nonzero(as_tuple=True)
    kind = torch.where(kinds[0][at, place], 0, torch.where(kinds[1][at, place], 1, 2))
    places.index_add_(0, at, _mixed(4 * (place + start) + kind))
    counts = [each.sum(dim=1).to(torch.float64) for each in kinds]
    return finite, [*counts, finite.sum(dim=1), finite.square().sum(dim=1), least, most], places


def _components(torch: Any, values: Any) -> Any:
    return torch.view_as_real(values) if values.is_complex() else values


def _float64(torch: Any, values: Any, dtype: str) -> Any:
    """Return values as float64, the lowest ones of a mask as -inf."""
    wide = values.to(torch.float64)
    lowest = DTYPES[dtype].lowest
    return torch.where(wide <= lowest, -torch.inf, wide) if lowest > -np.inf else wide


def _words(torch: Any, values: Any, dtype: str) -> Any:
    """Return the words of the digest of each row, as int64 of the shape (rows, words)."""
    if dtype == "uint64":
        return values.view(torch.int64)
    if DTYPES[dtype].kind in (Kind.INT, Kind.BOOL):
        return values.to(torch.int64)
    bits = values.view(torch.uint8)
    missing = -bits.shape[1] % 8
    if missing:
        bits = torch.nn.functional.pad(bits, (0, missing))
    elif bits.storage_offset() % 8:
        bits = bits.clone()
    return bits.view(torch.int64)


def _lanes(torch: Any, words: Any, block: int) -> Any:
    """Return both lanes of the digest of each row of words, which begin with block number `block`: shape (rows, 2)."""
    rows, count = words.shape
    full = count // WORDS * WORDS
    parts = [(words[:, :full].reshape(rows, -1, WORDS), block), (words[:, None, full:], block + full // WORDS)]
    low_keys, high_keys = _keys(words.device)
    found = torch.zeros(rows, 2, dtype=torch.int64, device=words.device)
    for part, first in parts:
        if not part.numel():
            continue
        low, high = part & _LOW, (part >> 32) & _LOW
        steps = torch.arange(first, first + part.shape[1], device=words.device) * _signed(BLOCK_STEP)
        for lane in range(2):
            here = slice(lane, lane + part.shape[2])
            products = ((low + low_keys[here]) & _LOW) * ((high + high_keys[here]) & _LOW)
            found[:, lane] += _mixed(products.sum(dim=2) + steps).sum(dim=1)
    return found


def _mixed(numbers: Any) -> Any:
    """Mix int64 as `digest.mixed` does uint64."""
    numbers = numbers + _signed(GOLDEN)
    numbers = (numbers ^ (numbers >> 30 & (1 << 34) - 1)) * _signed(FIRST)
    numbers = (numbers ^ (numbers >> 27 & (1 << 37) - 1)) * _signed(SECOND)
    return numbers ^ (numbers >> 31 & (1 << 33) - 1)


def _mixed_beyond() -> int:
    return int(mixed(np.array([BEYOND], np.uint64))[0])


def _signed(number: int) -> int:
    """Return the int64 that has the bits of a uint64."""
    return number - (1 << 64) if number >> 63 else number


def _halves(torch: Any, *numbers: Any) -> list[Any]:
    """Return the low and the high half of the bits of each, as float64."""
    return [half.to(torch.float64) for number in numbers for half in (number & _LOW, number >> 32 & _LOW)]


@lru_cache(maxsize=16)
def _keys(device: Any) -> tuple[Any, Any]:
    """Return the low and the high halves of the digest's keys."""
    torch = sys.modules["torch"]
    both = torch.from_numpy(keys().astype(np.int64)).to(device)
    return both & _LOW, both >> 32 & _LOW


@lru_cache(maxsize=64)
def _projection(width: int, device: Any) -> tuple[Any, Any]:
    """Return the order and the signs of a row's values on a device."""
    torch = sys.modules["torch"]
    order, signs = projection(width)
    return torch.from_numpy(order.astype(np.int64)).to(device), torch.from_numpy(signs).to(device)


@lru_cache(maxsize=16)
def _words_there(number: int, device: Any) -> Any:
    torch = sys.modules["torch"]
    return torch.from_numpy(random_words(number).astype(np.int64)).to(device)


def _tensor_projection(torch: Any, number: int, lines: int, device: Any) -> tuple[Any, Any]:
    """Return the order of the values in each line of a tensor's sketch, [lines, 1024], and their signs, flat.

    The lines begin with window `number` of AT_ONCE values.
    """
    windows = -(-lines * SKETCH_SIZE // AT_ONCE)
    words = torch.cat([_words_there(number + each, device) for each in range(windows)])
    words = words.reshape(-1, WINDOW // 64 + WINDOW_LINES)[: -(-lines // WINDOW_LINES)]
    sign_words = words[:, : WINDOW // 64].reshape(-1)[: lines * SKETCH_SIZE // 64]
    shifts = words[:, WINDOW // 64 :].reshape(-1, 1)[:lines] & (SKETCH_SIZE - 1)
    order = (torch.arange(SKETCH_SIZE, device=device) - shifts) & (SKETCH_SIZE - 1)
    minus = sign_words[:, None] >> torch.arange(64, device=device) & 1
    return order, 1.0 - 2.0 * minus.reshape(-1).to(torch.float64)
