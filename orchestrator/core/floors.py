"""Noise floors: how much of an error is noise, and who measured it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

FIGURES = ("rel_l2", "worst_row", "row_p50")
"""What a floor knows, by the names of the metrics."""


class FloorSource(str, Enum):
    """Sources of measured floors, the most reliable first."""

    REFERENCE = "reference"
    """Golden against a third side of higher precision (AWS Neuron's three-way comparison)."""
    QUANTISED = "quantised"
    """The same of a quantised checkpoint, whose inputs both round: round-off decides which way."""
    PERTURBED = "perturbed"
    """Golden against golden on an input that is perturbed in its last bit (TTrace, arXiv 2506.09280)."""
    REPEAT = "repeat"
    """Golden against golden again, or against its replicas on other ranks."""
    PROFILE = "profile"
    """The error of the same kind of label in earlier runs that were right (TAO, arXiv 2510.16028)."""


REPEATS = {"perturb": FloorSource.PERTURBED, "repeat": FloorSource.REPEAT}
"""Values of `--floor` that have the command run a second time."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The noise of one label: relative L2 error of the whole tensor, of its worst row and of its median row."""

    source: FloorSource
    rel_l2: float
    worst_row: float
    row_p50: float = 0.0


class ProfileKey(NamedTuple):
    """Key of errors that are comparable: one kind of label, two dtypes, two kinds of device."""

    kind: str
    """The label's id without the number of its layer."""
    golden_dtype: str
    actual_dtype: str
    golden_device: str
    """ "cuda", not "cuda:3"."""
    actual_device: str


class Usual(NamedTuple):
    """The errors of a kind in right runs: the 99th percentile over labels, ranks and tasks."""

    rel_l2: float
    worst_row: float
    measured: int
    row_p50: float = 0.0


Profile = Mapping[ProfileKey, Usual]
