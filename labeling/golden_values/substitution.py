"""Golden's tensor in the place of one that a module of the actual side took or returned.

The launcher sets what is put where: with `--local` golden's value goes on wherever a label is, so that each label is
computed from golden's values; with `--inject` it does so at the labels that are named.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from aclcmp.labeling.api import current_task, fail_at, is_local, record_at
from aclcmp.labeling.errors import AclcmpError, LabelError
from aclcmp.labeling.golden_values.golden_shards import GoldenShards, row_dimensions
from aclcmp.labeling.golden_values.slices import local_part
from aclcmp.labeling.identity import GOLDEN, INJECT, distributed_identity, rank_identity
from aclcmp.labeling.layout import Layout, Placement, Replicate, Shard
from aclcmp.labeling.rows import current_rows
from aclcmp.labeling.taps import in_compiled_code
from aclcmp.labeling.watch.messages import print_once_per_host

_ACTUAL = "acl"


class Substitution:
    """The golden values that replace those of this process."""

    def __init__(self, golden: GoldenShards, names: frozenset[str] | None) -> None:
        """`names` are the labels that are replaced; None: all that golden has, and none is recorded without."""
        self._golden, self._names = golden, names
        self._calls: Counter[tuple[int, str]] = Counter()

    def wants(self, name: str) -> bool:
        """Tell whether golden's value of a label is put into its place."""
        return name in self._golden.names if self._names is None else name in self._names

    def takes_input(self, module: str) -> bool:
        """Tell whether golden's value is put into an input of a module, by the id of the module's label."""
        names = self._golden.names if self._names is None else self._names
        return any(name == f"{module}.input" or name.startswith(f"{module}.input.") for name in names)

    def value(self, name: str, own: Any, layout: Any = None) -> Any:
        """Return a torch.Tensor like `own`, of golden's values, for the call or the rows under way.

        To be asked once for each call of the label. Raises LabelError where golden's value cannot be had.
        """
        import torch

        task = current_task()
        call = self._calls[task, name]
        self._calls[task, name] += 1
        rank = distributed_identity(rank_identity()).rank
        if hasattr(own, "placements") or not isinstance(own, torch.Tensor):
            raise LabelError(f"it is a {type(own).__name__}, which golden's values are not put into")
        placement = _single(layout) if self._golden.is_whole else Replicate()
        rows = current_rows()
        if rows is None:
            return _like(local_part(self._golden.call(task, name, call, rank), own, placement, rank), own)
        named = rows.named
        golden, lead = self._golden.rows(name, named, rank), row_dimensions(own.shape, named.table.shape[:-1])
        seen = own.reshape(len(golden), *own.shape[lead:])
        if golden.ndim != seen.ndim:  # heads may have a dimension of their own
            golden, seen = golden.flatten(1), seen.flatten(1)
        part = local_part(golden, seen, _in_rows(placement, own.ndim, lead), rank)
        return _like(part.reshape(own.shape), own)

    def next_tokens(
        self,
        requests: Sequence[str],
        positions: Sequence[int],
        tokens: Sequence[int],
        prompts: Mapping[str, Sequence[int]],
    ) -> list[int | None]:
        """Return the token that followed each one in the golden run; None where that is not known.

        `prompts` are those that are known, by request.
        """
        rows = zip(requests, positions, tokens, strict=True)
        return [self._golden.next_token(*row, prompts.get(row[0], ())) for row in rows]


def _like(golden: Any, own: Any) -> Any:
    """Return golden's values on the device and in the element type of a tensor."""
    return golden.to(device=own.device, dtype=own.dtype)


def _single(layout: Any) -> Placement | None:
    """Return the one placement of a layout; None where there are none. Raises LabelError for several."""
    placements = layout.placements if isinstance(layout, Layout) else layout
    if not isinstance(placements, Sequence):
        placements = [placements]
    if len(placements) > 1:
        raise LabelError("its layout has several placements, which golden's values are not cut by")
    return next(iter(placements), None)


def _in_rows(placement: Placement | None, dimensions: int, lead: int) -> Placement | None:
    """Return a placement for [rows, ...]: its dimension counted from the end; a sharding of rows needs no cut."""
    if not isinstance(placement, Shard):
        return placement
    dim = placement.dim if placement.dim < 0 else placement.dim - dimensions
    if dim < lead - dimensions:
        return None
    return Shard(dim, placement.parts, placement.zigzag, placement.size, placement.ranks)


def label_and_replace(site: str, side: str, name: str, own: Any, layout: Any = None, level: str = "") -> Any:
    """Label a tensor, and return the one of golden's values with which the model goes on; None: with its own.

    The label fails where golden's value is wanted and cannot be put into its place.
    """
    if in_compiled_code() and fail_in_graph(site, side, name):
        return None
    golden = substitution() if side == _ACTUAL else None
    if golden is None and is_local() and side == _ACTUAL:
        fail_at(site, side, name, "golden's values cannot be read")
        return None
    value = None
    if golden is not None and golden.wants(name):
        try:
            value = golden.value(name, own, layout)
        except Exception as error:  # whatever it is, it must not reach the model
            why = " ".join(str(error).split()) or type(error).__name__
            fail_at(site, side, name, f"golden's value cannot be put in its place: {why}")
            return None
    record_at(site, side, name, own, layout, level)
    return value


def fail_in_graph(site: str, side: str, name: str) -> bool:
    """Note as failed a label in compiled or captured code, where no value can be replaced, if one is to be.

    Tell whether that is so.
    """
    golden = substitution() if side == _ACTUAL else None
    if side == _ACTUAL and (is_local() or (golden is not None and golden.wants(name))):
        fail_at(
            site, side, name, "it runs in compiled or captured code, where golden's values cannot be put: run eagerly"
        )
        return True
    return False


@cache
def substitution() -> Substitution | None:
    """Return what the launcher has this process replace; None where that is nothing, or golden cannot be read."""
    folder = os.environ.get(GOLDEN)
    if not folder:
        return None
    names = frozenset(filter(None, os.environ.get(INJECT, "").split(",")))
    try:
        golden = GoldenShards(Path(folder))
        if missing := sorted(names - golden.names):
            raise LabelError(f"golden has no label {missing[0]!r}")
    except (AclcmpError, OSError) as error:
        print_once_per_host(f"golden's values cannot be used: {error}")
        return None
    return Substitution(golden, names or None)
