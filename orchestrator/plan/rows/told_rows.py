"""Names of rows that a rule tells for labels without any: which rows are padding, and which calls go on.

A request is a place in the batch. Its positions are counted from 0, over all calls where these are joined. Ranks of
which the mask or the lengths differ have requests of their own: they compute other data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.globs import glob_regex
from aclcmp.labeling.rows import NO_TOKEN, PADDING
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.plan.rank_labels import RankLabel, merge_processes

Numbers = npt.NDArray[np.int64]
Reader = Callable[[RankLabel], Numbers]
"""Returns a label's values as integers, in its shape. Raises UsageError where they cannot be read."""


@dataclass(frozen=True, slots=True)
class RowsRule:
    """Labels of a side ("pta" or "acl") whose ids a glob matches have rows. Raises LabelError for no glob."""

    side: str
    pattern: str
    line: int = 0
    mask: str = ""
    """Id of a label of each call, [batch, tokens], that is not zero where there is a token."""
    lengths: str | tuple[int, ...] = ""
    """Number of tokens of each request, or the id of a label of each call that has them."""
    left: int = 0
    """Tokens to which each request of `lengths` is padded on the left; 0 if it is not."""
    right: int = 0
    joined: str = ""
    """"calls" if a request goes on in the next call of its task where it ended, "tasks" if also in the next task."""
    by_rank: bool = False
    """Whether each rank has requests of its own, though nothing that tells rows differs."""
    regex: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", glob_regex(self.pattern))


class ToldRows(RowTable):
    """Rows by a rule: a wrong one must not hide rows, so that those of golden without a partner are told."""


def name_rows(
    indices: Sequence[ShardIndex], rules: Sequence[RowsRule], read: Reader, where: str
) -> tuple[list[ShardIndex], set[int]]:
    """Give labels that have none the rows that the first rule tells that matches; also return lines of such rules.

    Raises UsageError, with the line, where a label that a rule names is missing in a call or holds something else.
    """
    used: set[int] = set()
    named = []
    groups = _Groups()
    for index in indices:
        namer = _Namer(index, read, where, groups)
        records = list(index.records)
        for place, label in enumerate(namer.labels):
            record = label.record
            of_side = (rule for rule in rules if rule.side == record.side and rule.regex.fullmatch(record.data_id))
            rule = next(of_side, None)
            if rule is None or label.problem or record.rows >= 0 or record.data_id in (rule.mask, rule.lengths):
                continue
            used.add(rule.line)
            records[place] = replace(record, rows=namer.rows_of(label, rule))
        named.append(replace(index, records=tuple(records), rows={**index.rows, **namer.tables}))
    return named, used


class _Groups:
    """The groups of ranks that compute the same data, by what tells the rows of a side."""

    def __init__(self) -> None:
        self._known: dict[str, list[dict[object, bytes]]] = {}

    def number_of(self, side: str, told: dict[object, bytes], *, alone: bool) -> int:
        """Return the number of a rank's group, from 0: the first one that nothing of what it was told contradicts."""
        known = self._known.setdefault(side, [])
        for number, group in enumerate(known if not alone else ()):
            if all(group[call] == values for call, values in told.items() if call in group):
                group |= told
                return number
        known.append(dict(told))
        return len(known) - 1


class _Namer:
    """Names the rows of one rank's labels, call by call; labels of one call share a table."""

    def __init__(self, index: ShardIndex, read: Reader, where: str, groups: _Groups) -> None:
        self.labels = merge_processes([index])
        self._groups = groups
        self._group: dict[tuple[str, bool], str] = {}
        """How the group of this rank is called, by side and whether each rank is one."""
        self.tables: dict[int, RowTable] = {}
        self._read, self._where = read, where
        self._by_call = {(label.record.side, *label.key): label for label in self.labels}
        self._next = max(index.rows, default=-1) + 1
        self._known: dict[object, int] = {}
        self._values: dict[tuple[str, int, str, int], Numbers] = {}
        self._ends: dict[tuple[str, str, int], Numbers] = {}
        """Tokens so far of the requests of a label, by its side, id and task."""

    def rows_of(self, label: RankLabel, rule: RowsRule) -> int:
        """Return the number of the table that names a label's rows. Raises UsageError."""
        requests = self._requests(label, rule)
        count = int(requests.max(initial=-1)) + 1
        task = 0 if rule.joined == "tasks" else label.key.task
        name = label.record.side, label.key.label, task
        begin = self._ends.get(name, np.zeros(0, np.int64)) if rule.joined else np.zeros(0, np.int64)
        begin = np.pad(begin, (0, max(count - len(begin), 0)))
        self._ends[name] = begin + np.bincount(requests[requests >= 0], minlength=len(begin))
        call = "" if rule.joined or not label.key.occurrence else f", call {label.key.occurrence + 1}"
        group = self._group_of(rule)
        key = requests.shape, requests.tobytes(), begin.tobytes(), task, call, group
        if key not in self._known:
            self._known[key] = self._next
            names = {number: (task, f"{number}{group}{call}") for number in range(count)}
            self.tables[self._next] = ToldRows(_table(requests, begin), names, {})
            self._next += 1
        return self._known[key]

    def _group_of(self, rule: RowsRule) -> str:
        """Return what sets the requests of this rank apart from those of ranks with other data, "" for the first."""
        side, alone = rule.side, rule.by_rank
        if (side, alone) not in self._group:
            tellers = {each for each in (rule.mask, rule.lengths) if each and isinstance(each, str)}
            told: dict[object, bytes] = {}
            for label in self.labels:
                if label.record.side == side and label.key.label in tellers and not label.problem:
                    values = self._told(label, rule, label.key.label)
                    told[label.key] = repr(values.shape).encode() + values.tobytes()
            number = self._groups.number_of(f"{side} {alone}", told, alone=alone)
            self._group[side, alone] = f" of group {number + 1}" if number else ""
        return self._group[side, alone]

    def _requests(self, label: RankLabel, rule: RowsRule) -> Numbers:
        """Return the request of each row, PADDING for none, shape (batch, tokens) or (rows,). Raises UsageError."""
        if rule.mask:
            valid = self._told(label, rule, rule.mask) != 0
            if valid.ndim != 2:
                raise self._wrong(rule, f"{rule.mask} has the shape {list(valid.shape)}, not [batch, tokens]")
            return np.where(valid, np.arange(len(valid))[:, None], PADDING)
        if rule.lengths == "":
            batch, size = label.shape[:2] if len(label.shape) > 2 else (1, math.prod(label.shape[:1]))
            return np.repeat(np.arange(batch), size).reshape(batch, size)
        told = rule.lengths
        lengths = self._told(label, rule, told) if isinstance(told, str) else np.array(told, np.int64)
        if lengths.ndim != 1 or lengths.min(initial=0) < 0:
            raise self._wrong(
                rule, f"{told} has the shape {list(lengths.shape)} or is negative; give one length a request"
            )
        tokens = rule.left or rule.right
        if not tokens and int(lengths.sum()) > (most := math.prod(label.shape)):
            raise self._wrong(rule, f"lengths of {int(lengths.sum()):,} rows, of a tensor of {most:,} values")
        if not tokens:
            return np.repeat(np.arange(len(lengths)), lengths)
        if lengths.max(initial=0) > tokens:
            raise self._wrong(rule, f"a length of {lengths.max():,}, of requests that are padded to {tokens:,}")
        at = np.arange(tokens) - (tokens - lengths[:, None] if rule.left else 0)
        return np.where((at >= 0) & (at < lengths[:, None]), np.arange(len(lengths))[:, None], PADDING)

    def _told(self, label: RankLabel, rule: RowsRule, data_id: str) -> Numbers:
        """Return the values of the label that tells the rows of a call. Raises UsageError."""
        key = label.record.side, *label.key._replace(label=data_id)
        if key not in self._values:
            told = self._by_call.get(key)
            if told is None or told.problem:
                why = told.problem if told else f"rank {label.rank} has none in task {key[1]}, call {key[3] + 1}"
                raise self._wrong(rule, f"{data_id} is to tell the rows of {label.key.label}: {why}")
            self._values[key] = self._read(told)
        return self._values[key]

    def _wrong(self, rule: RowsRule, what: str) -> UsageError:
        return UsageError(f"{self._where}:{rule.line}: {what}")


def _table(requests: Numbers, begin: Numbers) -> npt.NDArray[np.int32]:
    """Return (request, position, no token) of each row; positions go on from where each request begins."""
    flat = requests.ravel()
    order = np.argsort(flat, kind="stable")
    _, first, counts = np.unique(flat[order], return_index=True, return_counts=True)
    position = np.empty_like(flat)
    position[order] = np.arange(flat.size) - np.repeat(first, counts)
    position = np.where(flat >= 0, position + np.append(begin, 0)[flat], 0)
    table = np.stack([flat, position, np.full_like(flat, NO_TOKEN)], -1).astype(np.int32)
    return table.reshape(*requests.shape, 3)
