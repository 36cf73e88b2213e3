"""SGLang's dump of forward passes (--debug-tensor-dump-output-folder), and vLLM's: `TP0_PP0_Rank0_pid7/Pass00003.pt`.

A file holds a dict of modules' outputs, by the modules' names, in the order of calls. It is written when the model's
body (`model`) returns, with the inputs of the batch last; the body's own output, and those of modules that run after
it, are in the next file. The inputs of the batch tell which token each row is: labels of all passes pair by request and
position, whatever the other side's batches are.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.orchestrator.dumps.batch_rows import PassRows, RequestsOfPasses
from aclcmp.orchestrator.dumps.dump_index import DumpContent, DumpEntry
from aclcmp.orchestrator.dumps.dump_paths import File, check_one_folder, parse_path
from aclcmp.orchestrator.dumps.format import DumpFiles, DumpFormat, FileContent, NamedTensor
from aclcmp.orchestrator.dumps.row_numbers import read_numbers
from aclcmp.orchestrator.dumps.torch_files import read_torch

_PASS = re.compile(r"Pass([0-9]{5,9})\.pt")
_FOLDER = re.compile(r"TP[0-9]+_PP[0-9]+_Rank([0-9]{1,6})_pid[0-9]+")
_BATCH = ".forward_batch_info."
_AFTER = r"(?:lm_head|logits_processor|pooler|score|classifier)(?:\..*)?"
"""Modules that run after the body of a model."""

_OF_REQUESTS = re.compile(rf"{_AFTER}|.*{re.escape(_BATCH)}seq_lens")
"""Tensors with a row for each request of a batch."""

_NO_ROWS = "the inputs of some passes are no tokens of requests one after another (drafts?): their rows have no names"
_UNPLACED = "what Pass00000 begins with is left out: it belongs to a pass before, which was not dumped"
_LOST = "what runs after a model's body (logits) is dumped with the next pass: of the last pass it is not there"


class SglangPasses(DumpFormat):
    """Outputs of modules in the order of computation; the number of a pass is that of the step."""

    tool = "SGLang's passes"

    def recognise(self, file: File) -> bool:
        """Accept files that are named as the dump of a pass."""
        return _PASS.fullmatch(file.parts[-1]) is not None

    def read(self, file: File, dump: DumpFiles) -> FileContent:
        """Read a pass as it was written, with the first tensors still those of the pass before."""
        return read_torch(file.path, dump.scratch)

    def index(self, dump: DumpFiles) -> DumpContent:
        """Return the tensors of each pass. Raises ForeignFormatError when two folders hold passes of one rank."""
        passes = [
            (_rank(file), int(named[1]), file) for file in dump.files if (named := _PASS.fullmatch(file.parts[-1]))
        ]
        passes.sort(key=lambda each: each[:2])
        check_one_folder((rank, file) for rank, _, file in passes)
        entries: list[DumpEntry] = []
        notes: dict[str, None] = {}
        requests: dict[int, RequestsOfPasses] = defaultdict(RequestsOfPasses)
        rows_of: dict[tuple[int, int], PassRows | None] = {}
        following: dict[int, int] = defaultdict(int)
        for rank, number, file in passes:
            tensors = [(name or file.stem, tensor) for name, tensor in self.try_read(file, dump).tensors]
            late, own = _split_off_late(tensors)
            if late and number == 0:
                late, notes[_UNPLACED] = [], None
            if number != following[rank]:
                requests[rank].lose_track()
            following[rank] = number + 1
            if any(_BATCH in name for name, _ in own):
                notes[_LOST] = None
                rows_of[rank, number] = _name_rows(own, requests[rank])
            else:
                requests[rank].lose_track()
            for step, (name, tensor) in [(number - 1, each) for each in late] + [(number, each) for each in own]:
                rows = _rows_of(name, tensor, rows_of.get((rank, step)))
                entries.append(DumpEntry(rank, step, name, tensor, file.path, file.time, rows=rows))
        if None in rows_of.values():
            notes[_NO_ROWS] = None
        if unnamed := max((each.unnamed for each in requests.values()), default=0):
            notes[f"{unnamed:,} rows belong to requests that the dump cannot tell apart: they are not compared"] = None
        return DumpContent(entries, list(notes))


def _name_rows(tensors: Sequence[NamedTensor], requests: RequestsOfPasses) -> PassRows | None:
    """Return the names of a pass's rows by the inputs of its batch; None where they do not tell them."""
    inputs = {name.rpartition(_BATCH)[2]: tensor for name, tensor in tensors if _BATCH in name}
    tokens, positions, lengths = (read_numbers(inputs.get(name)) for name in ("input_ids", "positions", "seq_lens"))
    if tokens is None or positions is None or lengths is None:
        requests.lose_track()
        return None
    return requests.name_rows(tokens, positions, lengths)


def _rows_of(name: str, tensor: DumpedTensor | NotDumped, named: PassRows | None) -> RowTable | None:
    """Return the names of a tensor's rows; None where it has no row for each token, or each request."""
    if named is None or not isinstance(tensor, DumpedTensor):
        return None
    rows = named.last if _OF_REQUESTS.fullmatch(name) else named.rows
    return rows if tensor.shape[:1] == rows.numbers.shape[:1] else None


def _rank(file: File) -> int:
    """Return the rank in the name of the file's folder, also where that folder itself was given."""
    folder = file.parts[-2] if len(file.parts) > 1 else Path(file.path).parent.name
    named = _FOLDER.fullmatch(folder)
    return int(named[1]) if named else parse_path(file.parts)[0]


def _split_off_late(tensors: Sequence[NamedTensor]) -> tuple[list[NamedTensor], list[NamedTensor]]:
    """Return a file's tensors of the pass before, and those of its own pass, with the inputs of the batch first."""
    batch = [(name, tensor) for name, tensor in tensors if _BATCH in name]
    body = batch[0][0].partition(_BATCH)[0] if batch else "model"
    output = rf"{re.escape(body)}(?:\.[0-9]+|\.pp_proxy_tensors\..*)?"
    after = re.compile(f"{output}|{_AFTER}")
    late = list(itertools.takewhile(lambda named: after.fullmatch(named[0]), tensors))
    if len(late) == len(tensors):  # not SGLang's: its passes hold the inputs of the batch
        return [], late
    return late, batch + [(name, tensor) for name, tensor in tensors[len(late) :] if _BATCH not in name]
