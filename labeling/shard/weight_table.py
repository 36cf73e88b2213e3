"""Hashes of a model's weights in a shard: stored as labels of a side of their own, and so as safe as labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.json_table import NO_TABLE, Read, pack_json, read_json
from aclcmp.labeling.shard.record import LabelRecord

PARAMETERS, HASHES = "parameters", "hashes"
"""Data ids on the side WEIGHTS: what is known of each parameter, as JSON, and the hashes of all of them before it."""
NOT_ZERO = 1 << 63
"""Set in the hash of a row that is not zero throughout; a zero row of n values has the hash n."""

TRANSPOSED = ("Conv1D",)
"""Classes of modules whose weights are [in, out]."""

Hashes = npt.NDArray[np.uint64]


def row_length(shape: tuple[int, ...]) -> int:
    """Return how many values a row has: 1 of vectors; of [out, in, ...] those of one output; [experts, out, in]: in."""
    return 1 if len(shape) < 2 else shape[-1] if len(shape) == 3 else prod(shape[1:])


@dataclass(frozen=True, slots=True)
class RowForm:
    """How rows of a parameter were taken: whole and as they are, or else how they were changed before."""

    dtype: str = ""
    """Element type to which they were cast; "" for the parameter's own."""
    part: int = 0
    parts: int = 1
    """Of so many equal parts of the columns, part number `part`."""
    transposed: bool = False
    """Whether they are the parameter's columns."""


@dataclass(frozen=True, slots=True, eq=False)
class HashedParameter:
    """One parameter of a model on one rank, with the hash of each of its rows."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    module: str
    """Name of the class of its module."""
    label: str
    """Id of the label of its module's output, "" where that is the module's name."""
    problem: str = ""
    """Why there are no hashes."""
    forms: Mapping[RowForm, Hashes] = field(default_factory=dict)
    """Hashes of the rows, from the first on, shape (rows,)."""
    tied: tuple[str, ...] = ()
    """Ids of the labels of further modules that share it."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightTable:
    """The weights of one model on one rank."""

    side: str
    """ "pta" or "acl"."""
    parameters: tuple[HashedParameter, ...]
    packed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name of a fused module -> names of its parts in their order, where the model's class tells."""

    def hashes(self) -> Hashes:
        """Return the hashes of all parameters one behind the other."""
        return np.concatenate([np.empty(0, np.uint64), *(h for p in self.parameters for h in p.forms.values())])

    def facts(self, hashes: int) -> npt.NDArray[np.uint8]:
        """Return the stored bytes of all but the hashes, which are in the record of that number."""
        told = [
            {name: getattr(each, name) for name in _FACTS}
            | {"forms": [[*asdict(form).values(), len(rows)] for form, rows in each.forms.items()]}
            for each in self.parameters
        ]
        return pack_json({"side": self.side, "hashes": hashes, "packed": dict(self.packed), "parameters": told})


_TEXTS = ("name", "dtype", "module", "label", "problem")
_FACTS = (*_TEXTS, "shape", "tied")


def read_weight_tables(records: Sequence[LabelRecord], read: Read) -> Iterator[WeightTable]:
    """Yield the tables of a shard; those that cannot be read are left out.

    `records` are those of the side WEIGHTS, in order; `read` raises ShardError or OSError for bytes that are not whole.
    """
    by_number = {record.seq: record for record in records}
    for record in records:
        if record.data_id == PARAMETERS:
            try:
                told = read_json(record, read)
                hashes = np.asarray(read(by_number[told["hashes"]]), np.uint64).reshape(-1)
                yield _table(told, hashes)
            except NO_TABLE:
                continue


def _table(told: Any, hashes: Hashes) -> WeightTable:
    """Return what was stored. Raises ValueError, KeyError, TypeError or AttributeError for what is no table."""
    parameters, begin = [], 0
    for each in told["parameters"]:
        forms = {}
        for dtype, part, parts, transposed, count in each["forms"]:
            form = RowForm(str(dtype), int(part), int(parts), bool(transposed))
            if not 0 <= form.part < form.parts or not 0 <= count <= len(hashes) - begin:
                raise ValueError("impossible rows of a parameter")
            forms[form] = hashes[begin : begin + count]
            begin += count
        texts = {name: str(each[name]) for name in _TEXTS}
        shape, tied = tuple(map(int, each["shape"])), tuple(map(str, each.get("tied", ())))
        parameters.append(HashedParameter(**texts, shape=shape, forms=forms, tied=tied))
    if told["side"] not in ("pta", "acl") or begin != len(hashes):
        raise ValueError("the hashes are not those of the parameters")
    packed = {str(name): tuple(map(str, parts)) for name, parts in told["packed"].items()}
    return WeightTable(told["side"], tuple(parameters), packed)
