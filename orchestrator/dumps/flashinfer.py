"""FlashInfer's dump of its calls (FLASHINFER_LOGLEVEL=10): `20260101_120000_123_pid7_rmsnorm_call0001/inputs.pt`.

Each call has a folder with its `inputs` and `outputs`, as torch's or safetensors' files, and `metadata.jsonl`. Of calls
in a captured graph each replay has a folder `graph_flushes/flush_0001` within; the folder itself repeats the last one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError
from aclcmp.orchestrator.dumps.dump_index import DumpContent, DumpEntry
from aclcmp.orchestrator.dumps.dump_paths import File, rank_of
from aclcmp.orchestrator.dumps.format import DumpFiles, DumpFormat, FileContent
from aclcmp.orchestrator.dumps.order import OrderBasis
from aclcmp.orchestrator.dumps.tensor_files import TensorFiles

_CALL = re.compile(r"([0-9]{8}_[0-9]{6}_[0-9]{3})_pid([0-9]{1,10})_(.+)_call([0-9]{4,9})")
_FLUSH = re.compile(r"flush_([0-9]{4,9})")
_FILES = re.compile(r"(?:inputs|outputs)\.(?:pt|safetensors)")
_BY_PID = "the dump does not tell ranks: processes are numbered by their IDs; put rankN into FLASHINFER_DUMP_DIR"
_TENSOR_FILES = TensorFiles()
_Process = tuple[int | None, int]
"""The rank in its path, None where there is none, and its ID, which processes of other hosts may have too."""


@dataclass(frozen=True, slots=True)
class _CallFile:
    """The inputs or the outputs of a call."""

    file: File
    flush: int
    """Number of the replay; 0 outside of graphs."""
    started: str
    process: _Process
    function: str
    call: int
    """Number of the call among those of the function in its process."""

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts the calls of a process: inputs before outputs."""
        return self.flush, self.started, self.call, self.function, self.file.parts[-1]


class FlashinferCalls(DumpFormat):
    """Inputs and outputs of calls, in the order in which the calls began: `rmsnorm.arg_0`, `rmsnorm.result`."""

    tool = "FlashInfer's calls"

    def recognise(self, file: File) -> bool:
        """Accept the inputs and outputs in the folder of a call."""
        return _call_of(file) is not None

    def read(self, file: File, dump: DumpFiles) -> FileContent:
        """Read the tensors of a file: `arg_0`, `kwarg_NAME`, `result`, `result_0`."""
        return _TENSOR_FILES.read(file, dump)

    def index(self, dump: DumpFiles) -> DumpContent:
        """Return all calls. Ranks are those in the paths, or else the order of process IDs.

        Raises ForeignFormatError when one rank has calls of two processes.
        """
        files = [call for file in dump.files if (call := _call_of(file)) is not None]
        replayed = {Path(each.file.path).parents[2] for each in files if each.flush}
        calls = [each for each in files if each.flush or Path(each.file.path).parent not in replayed]
        ranks, notes = _ranks_of(calls)
        entries = []
        for each in sorted(calls, key=lambda call: call.order):
            rank = ranks[each.process]
            for key, tensor in self.try_read(each.file, dump).tensors:
                name = f"{each.function}.{key or each.file.stem}"
                entries.append(DumpEntry(rank, 0, name, tensor, each.file.path, each.file.time))
        return DumpContent(entries, notes, order=OrderBasis.CALLS)


def _call_of(file: File) -> _CallFile | None:
    """Return the call whose inputs or outputs a file holds, by the folders above it, also where such a one was given.

    None for any other file.
    """
    folder, above = Path(file.path).parent, file.parts[:-2]
    flush = _FLUSH.fullmatch(folder.name)
    if flush is not None and folder.parent.name == "graph_flushes":
        folder, above = folder.parents[1], above[:-2]
    named = _CALL.fullmatch(folder.name)
    if named is None or _FILES.fullmatch(file.parts[-1]) is None:
        return None
    rank = next((rank for part in above if (rank := rank_of(part)[0]) is not None), None)
    return _CallFile(file, int(flush[1]) if flush else 0, named[1], (rank, int(named[2])), named[3], int(named[4]))


def _ranks_of(calls: Sequence[_CallFile]) -> tuple[Mapping[_Process, int], Sequence[str]]:
    """Return the rank of each process, and what there is to say about it.

    Raises ForeignFormatError when two processes state one rank.
    """
    processes = sorted({each.process for each in calls}, key=lambda each: (each[1], -1 if each[0] is None else each[0]))
    if any(rank is None for rank, _ in processes):
        return {process: number for number, process in enumerate(processes)}, (_BY_PID,) if len(processes) > 1 else ()
    ranks = {process: process[0] for process in processes if process[0] is not None}
    pids: dict[int, int] = {}
    for (_, pid), rank in ranks.items():
        if pids.setdefault(rank, pid) != pid:
            raise ForeignFormatError(
                f"rank {rank} has calls of both processes {pids[rank]} and {pid}; keep the folders of one of them"
            )
    return ranks, ()
