"""SGLang's dump of forward passes (--debug-tensor-dump-output-folder), and vLLM's: `TP0_PP0_Rank0_pid7/Pass00003.pt`.

A file holds a dict of what modules returned, by their names, in the order of calls. It is written when the model's body
(`model`) returns, with the inputs of the batch last; what the body returned and what runs after it begin the next file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError, NotDumped
from aclcmp.orchestrator.dumps.files import File, check_one_folder, placed
from aclcmp.orchestrator.dumps.index import Found
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.torch_files import read_torch

_PASS = re.compile(r"Pass([0-9]{5,9})\.pt")
_FOLDER = re.compile(r"TP[0-9]+_PP[0-9]+_Rank([0-9]{1,6})_pid[0-9]+")
_BATCH = ".forward_batch_info."
_AFTER = r"(?:lm_head|logits_processor|pooler|score|classifier)(?:\..*)?"
"""Modules that run after the body of a model."""

_UNPLACED = "what Pass00000 begins with is left out: it belongs to a pass before, which was not dumped"
_LOST = "what runs after a model's body (logits) is dumped with the next pass: of the last pass it is not there"

_Tensor = tuple[str, DumpedTensor | NotDumped]


def is_pass(file: File) -> bool:
    """Whether a file is named as the dump of a pass."""
    return _PASS.fullmatch(file.parts[-1]) is not None


def read_passes(files: Sequence[File], scratch: Scratch) -> tuple[list[Found], list[str]]:
    """Return the tensors of a dump in the order of computation, and notes. The number of a pass is that of the task.

    Raises ForeignFormatError when two folders hold passes of one rank.
    """
    passes = sorted(((_rank(file), _number(file), file) for file in files if is_pass(file)), key=lambda each: each[:2])
    check_one_folder((rank, file) for rank, _, file in passes)
    found: list[Found] = []
    notes: dict[str, None] = {}
    for rank, number, file in passes:
        tensors = _tensors(file, scratch)
        late, own = _split(tensors)
        if late and number == 0:
            late, notes[_UNPLACED] = [], None
        if any(_BATCH in name for name, _ in own):
            notes[_LOST] = None
        both = [(number - 1, each) for each in late] + [(number, each) for each in own]
        found += [Found(rank, task, name, tensor, file.path, file.time) for task, (name, tensor) in both]
    return found, list(notes)


def _rank(file: File) -> int:
    """The rank that the folder tells, also where the folder itself was given."""
    folder = file.parts[-2] if len(file.parts) > 1 else Path(file.path).parent.name
    named = _FOLDER.fullmatch(folder)
    return int(named[1]) if named else placed(file.parts)[0]


def _number(file: File) -> int:
    named = _PASS.fullmatch(file.parts[-1])
    assert named is not None
    return int(named[1])


def _tensors(file: File, scratch: Scratch) -> list[_Tensor]:
    try:
        if file.refused:
            raise ForeignFormatError(file.refused)
        return list(read_torch(file.path, scratch).tensors)
    except ForeignFormatError as error:
        return [(file.parts[-1].removesuffix(".pt"), NotDumped(str(error), unreadable=True))]


def _split(tensors: Sequence[_Tensor]) -> tuple[list[_Tensor], list[_Tensor]]:
    """Return what a file holds of the pass before, and of its own, whose inputs are put first."""
    batch = [(name, tensor) for name, tensor in tensors if _BATCH in name]
    body = batch[0][0].partition(_BATCH)[0] if batch else "model"
    returned = rf"{re.escape(body)}(?:\.[0-9]+|\.pp_proxy_tensors\..*)?"
    after = re.compile(f"{returned}|{_AFTER}")
    late = list(itertools.takewhile(lambda named: after.fullmatch(named[0]), tensors))
    if len(late) == len(tensors):  # none of SGLang's: its passes hold the inputs of the batch
        return [], late
    return late, batch + [(name, tensor) for name, tensor in tensors[len(late) :] if _BATCH not in name]
