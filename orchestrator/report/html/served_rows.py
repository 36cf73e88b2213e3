"""Rows of the table of labels for a page that is served: found, sorted and cut here, for a report of any size."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict
from aclcmp.orchestrator.report.html.grid import FACES, face_number
from aclcmp.orchestrator.report.html.overview import side_words
from aclcmp.orchestrator.report.html.packed import printable, round_figure

MOST_AT_ONCE = 1000
_SIDES = {"dtype": 0, "shape": 1, "site": 3}
_FIGURES = ("margin", "relL2", "own")
_NAMES = ("golden", "actual")

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowQuery:
    """What the table asks for; hashable, for the next rows of one query are asked for one after the other."""

    words: tuple[str, ...]
    """In lower case; a row has all of them in its name, shape, dtype, device or call site."""
    looks: frozenset[str]
    """Looks of faces; empty for all."""
    columns: str
    """ "worst" rank of each label, "every" rank, or the number of a column of the map."""
    order: str
    descending: bool

    @staticmethod
    def of(wanted: Mapping[str, str]) -> RowQuery:
        """Read a query from the parameters of an address; what is not there has its default."""
        words = tuple(wanted.get("words", "").lower().split())
        looks = frozenset(filter(None, wanted.get("looks", "").split(",")))
        order, columns = wanted.get("order", ""), wanted.get("columns", "worst")
        return RowQuery(words, looks, columns, order, wanted.get("descending") == "true")


class ServedRows:
    """The (label, rank) of a report as columns, without their verdicts."""

    def __init__(self, labels: Sequence[LabelVerdict], columns: Sequence[tuple[int, ...]]) -> None:
        """Take what the table shows of each (label, rank)."""
        verdicts = [verdict for label in labels for verdict in label.ranks]
        self._label = np.repeat(np.arange(len(labels)), [len(label.ranks) for label in labels])
        self._rank = np.array([verdict.rank for verdict in verdicts], np.int64)
        self._face = np.array([face_number(verdict) for verdict in verdicts], np.uint8)
        self._figures = {name: np.array([_FIGURE_OF[name](each) for each in verdicts], float) for name in _FIGURES}
        column = {rank: number for number, ranks in enumerate(columns) for rank in ranks}
        self._column = np.array([column[verdict.rank] for verdict in verdicts], np.int64)
        self._texts = [printable(label.key.label).lower() for label in labels]
        sides = [[_words(label, part) for label in labels] for part in _SIDES.values()]
        self._keys = {"label": _places(self._texts), "task": np.array([label.key.task for label in labels], np.int64)}
        self._keys |= {name: _places(texts) for name, texts in zip(_SIDES, sides, strict=True)}
        self._texts = [" ".join(words).lower() for words in zip(self._texts, *sides, strict=True)]
        self._worst = self._worst_of_labels(len(labels))
        self._looks = np.array(["", *(face.classes for face in FACES)])
        self._find = lru_cache(maxsize=8)(self._find_rows)

    def _worst_of_labels(self, labels: int) -> _Ints:
        """Return the number of the gravest row of each label, of equal ones the first with the largest margin."""
        margin = np.nan_to_num(self._figures["margin"], nan=-1.0)
        order = np.lexsort((-np.arange(len(margin)), margin, self._face, self._label))
        last = np.searchsorted(self._label[order], np.arange(labels), side="right") - 1
        found = order[last]
        return found[self._label[found] == np.arange(labels)] if len(order) else order

    def find(self, query: RowQuery, first: int, last: int) -> dict[str, Any]:
        """Return the rows `first` to `last` of a query, how many it has, and how many rows of each look there are."""
        found, counts = self._find(query)
        rows = found[max(first, 0) : min(last, first + MOST_AT_ONCE)]
        figures = [[round_figure(value) for value in self._figures[name][rows].tolist()] for name in _FIGURES]
        labels, ranks, faces = (values[rows].tolist() for values in (self._label, self._rank, self._face))
        return {"total": len(found), "counts": counts, "rows": list(zip(labels, ranks, faces, *figures, strict=True))}

    def _find_rows(self, query: RowQuery) -> tuple[_Ints, dict[str, int]]:
        rows = self._rows_of(query.columns)
        if query.words:
            fits = np.array([all(word in text for word in query.words) for text in self._texts], bool)
            rows = rows[fits[self._label[rows]]]
        looks = self._looks[self._face[rows]]
        counts = dict(zip(*(each.tolist() for each in np.unique(looks, return_counts=True)), strict=True))
        if query.looks:
            rows = rows[np.isin(looks, list(query.looks))]
        key = self._key(query.order, rows)
        return rows[np.argsort(-key if query.descending else key, kind="stable")], counts

    def _rows_of(self, columns: str) -> _Ints:
        if columns == "worst":
            return self._worst
        if columns.isdecimal() and len(columns) < 6:
            return np.flatnonzero(self._column == int(columns))
        return np.arange(len(self._label))

    def _key(self, order: str, rows: _Ints) -> npt.NDArray[Any]:
        if order in _FIGURES:
            return np.asarray(np.nan_to_num(self._figures[order][rows], nan=-1.0))
        if order == "status":
            return self._face[rows].astype(np.int64)
        if order == "rank":
            return self._rank[rows]
        key = self._keys.get(order)
        return rows if key is None else np.asarray(key[self._label[rows]])


def _rel_l2(verdict: RankVerdict) -> float:
    return nan if verdict.metrics is None else verdict.metrics.rel_l2


def _margin(verdict: RankVerdict) -> float:
    return nan if verdict.margin is None else verdict.margin


def _own(verdict: RankVerdict) -> float:
    return nan if verdict.own is None else verdict.own.rel_l2


_FIGURE_OF: dict[str, Callable[[RankVerdict], float]] = {"margin": _margin, "relL2": _rel_l2, "own": _own}


def _words(label: LabelVerdict, part: int) -> str:
    """Return a part of both sides' words, once where they agree."""
    sides = (next((each for v in label.ranks if (each := getattr(v, name)) is not None), None) for name in _NAMES)
    return " ".join(dict.fromkeys(printable(side_words(side)[part]) for side in sides if side is not None))


def _places(texts: Sequence[str]) -> _Ints:
    """Return the place of each text in their order, numbers within texts by their value."""

    def natural(text: str) -> list[tuple[bool, int, str]]:
        return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", text)]

    place = {text: at for at, text in enumerate(sorted(set(texts), key=natural))}
    return np.array([place[text] for text in texts], np.int64)
