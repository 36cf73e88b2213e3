"""Hidden states that vLLM's connector stores (ExampleHiddenStatesConnector): one `.safetensors` file for each request.

A file, `<request>.safetensors`, has `hidden_states` [tokens, layers, hidden] and `token_ids` [tokens], from the
request's first token on. Which layers these are, the engine's configuration tells: `eagle_aux_hidden_state_layer_ids`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped, name_file_in_errors, printable
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.orchestrator.dumps.dump_index import DumpContent, DumpEntry
from aclcmp.orchestrator.dumps.dump_paths import File, parse_path
from aclcmp.orchestrator.dumps.format import DumpFiles, DumpFormat, FileContent, NamedTensor
from aclcmp.orchestrator.dumps.row_numbers import are_of_rows, read_numbers
from aclcmp.orchestrator.dumps.safetensors import read_safetensors

_STATES, _TOKENS = "hidden_states", "token_ids"
_LONGEST_HEADER = 4096  # bytes; that of the connector has two tensors
_SAID = "hidden_states.N are the layers that the engine was told to extract, in its order; name theirs with --map"


class HiddenStates(DumpFormat):
    """The hidden states of each extracted layer as a label, `hidden_states.0`, with a row for each token."""

    tool = "vLLM's hidden states"

    def recognise(self, file: File) -> bool:
        """Accept `.safetensors` files that hold these two tensors and nothing else."""
        if file.suffix != ".safetensors" or file.refused:
            return False
        try:
            with Path(file.path).open("rb") as opened:
                length = int.from_bytes(opened.read(8), "little")
                header = json.loads(opened.read(length)) if length <= _LONGEST_HEADER else {}
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(header, dict) and header.keys() - {"__metadata__"} == {_STATES, _TOKENS}

    def read(self, file: File, dump: DumpFiles) -> FileContent:
        """Read both tensors; of several layers, each is copied. A file of others holds none."""
        content = dict(read_safetensors(file.path, dump.scratch).tensors)
        if content.keys() != {_STATES, _TOKENS}:
            return FileContent(())
        states, tokens = content[_STATES], content[_TOKENS]
        if not isinstance(states, DumpedTensor) or len(states.shape) != 3:
            return FileContent(((_STATES, states), (_TOKENS, tokens)))
        layers: list[NamedTensor] = [
            (f"{_STATES}.{layer}", _layer(states, layer, dump)) for layer in range(states.shape[1])
        ]
        return FileContent((*layers, (_TOKENS, tokens)))

    def index(self, dump: DumpFiles) -> DumpContent:
        """Return the layers of all requests: all are of step 0, and rows tell the requests."""
        entries: list[DumpEntry] = []
        notes = [_SAID]
        for file in dump.files:
            if file.suffix != ".safetensors":
                continue
            tensors = dict(self.try_read(file, dump).tensors)
            if not tensors:
                notes.append(
                    f"{printable('/'.join(file.parts))} is left out: it is no request's {_STATES} and {_TOKENS}"
                )
            named = _name_rows(tensors.pop(_TOKENS, None), file.stem)
            rank, _, _ = parse_path(file.parts)
            for name, tensor in tensors.items():
                fits = named and isinstance(tensor, DumpedTensor) and tensor.shape[:1] == named.numbers.shape[:1]
                rows = named if fits else None
                entries.append(DumpEntry(rank, 0, name or file.stem, tensor, file.path, file.time, rows=rows))
        return DumpContent(entries, notes)


def _layer(states: DumpedTensor, layer: int, dump: DumpFiles) -> DumpedTensor:
    """Return the states of one layer, in place where there is only one."""
    tokens, layers, hidden = states.shape
    if layers == 1 or 0 in states.shape:
        return DumpedTensor(states.path, states.offset, states.dtype, (tokens, hidden))
    memory = DTYPES[states.dtype].memory
    with name_file_in_errors(states.path), Path(states.path).open("rb") as file:
        return dump.scratch.copy_from_file(
            file,
            lambda pages: np.ndarray(states.shape, memory, pages, states.offset)[:, layer],
            states.dtype,
            "each layer was copied",
            states.path,
        )


def _name_rows(tokens: DumpedTensor | NotDumped | None, request: str) -> RowTable | None:
    """Return the names of a request's rows; None where the file does not tell its tokens."""
    ids = read_numbers(tokens)
    if ids is None or not are_of_rows(ids):
        return None
    table = np.stack([np.zeros_like(ids), np.arange(ids.size), ids], axis=1).astype(np.int32)
    return RowTable(table, {0: (0, printable(request))}, {})
