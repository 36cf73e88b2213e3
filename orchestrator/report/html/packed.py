"""How data stand in the page: JSON and bytes as gzip in base64, errors as 16-bit logarithms, texts that steer nothing.

Base64 holds no character that HTML, JSON or a script could misread. `unpack.js` reads what is written here.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.report.as_json import number

PER_DECADE = 1600
"""Codes per power of ten: neighbours are 0.14 % apart."""
LOWEST = -30
"""log10 of the smallest value that has a code of its own; the largest is 39 decades above."""
_NONE, _ZERO, _FIRST, _LAST, _INFINITE = 0, 1, 2, 65534, 65535


def pack(data: bytes) -> str:
    """Return bytes as text; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def pack_json(value: object) -> str:
    """Return what JSON can hold as packed text; half surrogates survive as escapes."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return pack(text.encode("ascii"))


def log_codes(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    """Return values (none of them negative) as codes of their logarithm: nan is 0, zero 1, infinity 65535."""
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.round((np.log10(values) - LOWEST) * PER_DECADE) + _FIRST
        codes = np.clip(np.nan_to_num(codes), _FIRST, _LAST)
    codes[np.isnan(values)] = _NONE
    codes[values == 0] = _ZERO
    codes[np.isposinf(values)] = _INFINITE
    return np.asarray(codes, np.uint16)


def round_figure(value: float | None, digits: int = 3) -> float | str | None:
    """Return a float with so many significant digits as JSON can hold it: nan as None, infinity as "inf"."""
    return None if value is None else number(float(f"{value:.{digits}g}"))


def printable(text: str) -> str:
    """Return a text of the user's run as the page shows it: control and format characters as escapes."""
    return visible(text)


def printable_in(value: object) -> object:
    """Return lists and tables with all texts in them as the page shows them."""
    if value is None or isinstance(value, (float, int)):
        return value  # by far the most
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(str(name)): printable_in(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [printable_in(one) for one in value]
    return value
