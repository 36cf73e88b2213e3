"""A folder of numpy's, torch's and safetensors' files, named by whoever saved them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, NotDumped, printable
from aclcmp.orchestrator.dumps.files import File, placed
from aclcmp.orchestrator.dumps.index import Found
from aclcmp.orchestrator.dumps.npy import read_npy, read_npz
from aclcmp.orchestrator.dumps.order import Order, order_of
from aclcmp.orchestrator.dumps.safetensors import read_safetensors
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.torch_files import read_torch

SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth")


def read_tensors(file: File, scratch: Scratch) -> Iterator[tuple[str, DumpedTensor | NotDumped]]:
    """Yield names and tensors of one file of any of `SUFFIXES`; the name of one that is the whole file is ""."""
    try:
        if file.refused:
            yield "", NotDumped(file.refused, unreadable=True)
        elif file.suffix == ".npy":
            yield "", read_npy(file.path, scratch)
        elif file.suffix == ".npz":
            yield from read_npz(file.path, scratch)
        elif file.suffix == ".safetensors":
            yield from read_safetensors(file.path)
        else:
            yield from read_torch(file.path, scratch).tensors
    except ForeignFormatError as error:
        yield "", NotDumped(str(error), unreadable=True)


_KEEPS_ORDER = (".npz", ".pt", ".pth")
"""Files whose tensors lie in the order in which they were given."""


def read_tensor_files(files: Sequence[File], scratch: Scratch) -> tuple[list[Found], list[str], Order]:
    """Return the tensors of those files that may hold some in the order of computation, notes, and what that rests on.

    Ranks are told by `rankN` in a path, steps by folders `stepN`; both are 0 otherwise. A tensor's name is its file's
    path with dots, and its name within the file. Where those within are distinct by themselves, in each step of each
    rank, they alone are taken: so states saved under other names of files, or in other parts, pair up.
    """
    several: list[tuple[int, int, str, str, DumpedTensor | NotDumped, File]] = []
    notes = []
    for file in files:
        if file.suffix not in SUFFIXES:
            continue
        rank, task, outer = placed(file.parts)
        before = len(several)
        several += [(rank, task, outer, inner, tensor, file) for inner, tensor in read_tensors(file, scratch)]
        if len(several) == before:
            notes.append(f"{printable('/'.join(file.parts))} holds no tensor")
    short = Counter((rank, task, inner or outer) for rank, task, outer, inner, _, _ in several)
    alone = max(short.values(), default=0) == 1
    found = []
    for rank, task, outer, inner, tensor, file in several:
        name = (inner or outer) if alone else ".".join(filter(None, (outer, inner)))
        found.append(Found(rank, task, name, tensor, file.path, file.time))
    order, ordered = _in_order(found)
    return ordered, notes, order


def _in_order(found: Sequence[Found]) -> tuple[Order, list[Found]]:
    """Order the tensors of each step of each rank, and tell what the order rests on, at worst."""
    groups: dict[tuple[int, int], list[Found]] = defaultdict(list)
    for each in found:
        groups[each.rank, each.task].append(each)
    worst, ordered = Order.CALLS, []
    for group in groups.values():
        paths = {each.path for each in group}
        if len(group) > 1 and not (len(paths) == 1 and next(iter(paths)).lower().endswith(_KEEPS_ORDER)):
            single = len(paths) == len(group)
            order, places = order_of([each.name for each in group], [each.time if single else 0.0 for each in group])
            worst = max(worst, order, key=list(Order).index)
            group = [group[place] for place in places]
        ordered += group
    return worst, ordered
