"""Similarity of the labels of two runs, by their words, their shapes, and the numbers of their layers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.idmap.name_tokens import name_tokens, split_numbers
from aclcmp.orchestrator.idmap.signatures import ValueSignature

Matrix: TypeAlias = npt.NDArray[np.float64]

_COMMON = 0.1
"""Weight of a word that all names of a side have: it distinguishes nothing, and a tool may have added it."""
SIMILARITY = {"equal": 1.0, "same elements": 0.8, "a part": 0.7, "different": 0.0}
"""Weight of each relation between two shapes. "a part": in one dimension, one size is a multiple of the other."""


@dataclass(frozen=True, slots=True)
class CandidateLabel:
    """Label of one task on one side. `dtype` is torch's name, `order` its position in the recording."""

    data_id: str
    shape: tuple[int, ...]
    dtype: str
    order: int
    signatures: tuple[ValueSignature, ...] = field(default=(), compare=False, repr=False)
    """Signatures of its values, one for each layout that its global tensor may have."""


@dataclass(frozen=True, slots=True)
class Form:
    """Labels of one side that differ only in numbers. `labels` maps their numbers to them, in order of recording."""

    text: str
    words: frozenset[str]
    labels: dict[tuple[int, ...], CandidateLabel]

    @property
    def first(self) -> CandidateLabel:
        """The label that was recorded first."""
        return next(iter(self.labels.values()))


def forms_of(side: Sequence[CandidateLabel]) -> list[Form]:
    """Return the forms of one side, in order of their first labels."""
    forms: dict[str, Form] = {}
    for label in sorted(side, key=lambda s: (s.order, s.data_id)):
        text, numbers = split_numbers(label.data_id)
        form = forms.setdefault(text, Form(text, name_tokens(text), {}))
        form.labels.setdefault(numbers, label)
    return list(forms.values())


def relation_of(golden: tuple[int, ...], actual: tuple[int, ...]) -> str:
    """Return the relation of two shapes, a key of SIMILARITY."""
    if golden == actual:
        return "equal"
    if [n for n in golden if n != 1] == [n for n in actual if n != 1] or math.prod(golden) == math.prod(actual):
        return "same elements"
    unequal = [(a, b) for a, b in zip(golden, actual, strict=False) if a != b]
    if len(golden) == len(actual) and len(unequal) == 1:
        small, large = sorted(unequal[0])
        if small and large % small == 0:
            return "a part"
    return "different"


def shape_similarity(golden: Sequence[Form], actual: Sequence[Form]) -> Matrix:
    """Return the similarity of the first labels' shapes, 0 to 1; -1 where layer numbers or kinds of elements differ."""
    kinds: list[dict[Any, list[int]]] = []
    for forms in (golden, actual):
        by_facts: dict[Any, list[int]] = defaultdict(list)
        for number, form in enumerate(forms):
            by_facts[form.first.shape, _kind(form.first.dtype), frozenset(form.labels)].append(number)
        kinds.append(by_facts)
    similarity = np.full((len(golden), len(actual)), -1.0)
    for (shape, kind, numbers), rows in kinds[0].items():
        for (other, other_kind, other_numbers), columns in kinds[1].items():
            if kind == other_kind and not numbers.isdisjoint(other_numbers):
                similarity[np.ix_(rows, columns)] = SIMILARITY[relation_of(shape, other)]
    return similarity


def _kind(dtype: str) -> str:
    kinds = {
        "float": "float",
        "bfloat": "float",
        "half": "float",
        "double": "float",
        "complex": "complex",
        "bool": "bool",
    }
    return next((kind for start, kind in kinds.items() if dtype.startswith(start)), "integer")


def name_similarity(golden: Sequence[Form], actual: Sequence[Form]) -> Matrix:
    """Return twice the weight of common words over the weight of all words (Dice's coefficient), 0 to 1.

    Words that all names of a side have weigh least.
    """
    forms = [*golden, *actual]
    column = {word: number for number, word in enumerate(sorted({word for form in forms for word in form.words}))}
    holds = np.zeros((len(forms), len(column)))
    for row, form in enumerate(forms):
        holds[row, [column[word] for word in form.words]] = 1
    theirs, ours = holds[: len(golden)], holds[len(golden) :]
    share = np.maximum(*(side.sum(axis=0) / max(len(side), 1) for side in (theirs, ours)))
    weight = _COMMON - np.log2(share)
    common = (theirs * weight) @ ours.T
    total = (theirs @ weight)[:, None] + (ours @ weight)[None, :]
    similarity: Matrix = np.round(2 * common / np.maximum(total, 1e-9), 6)  # rounded, so that round-off decides nothing
    return similarity
