"""All dump formats, and the way in: recognises whose dump a folder is, and indexes it."""

from __future__ import annotations

import os
from pathlib import Path

from aclcmp.orchestrator.dumps.atb.atb_dump import AtbDump
from aclcmp.orchestrator.dumps.dump_index import DumpIndex, build_index
from aclcmp.orchestrator.dumps.dump_paths import list_files
from aclcmp.orchestrator.dumps.flashinfer import FlashinferCalls
from aclcmp.orchestrator.dumps.format import DumpFiles, DumpFormat
from aclcmp.orchestrator.dumps.hidden_states import HiddenStates
from aclcmp.orchestrator.dumps.msprobe import MsprobeDump
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.sglang_dumper import SglangDumper
from aclcmp.orchestrator.dumps.sglang_passes import SglangPasses
from aclcmp.orchestrator.dumps.tensor_files import TensorFiles

FORMATS: tuple[DumpFormat, ...] = (
    MsprobeDump(),
    AtbDump(),
    SglangDumper(),
    SglangPasses(),
    FlashinferCalls(),
    HiddenStates(),
    TensorFiles(),  # last: the files of the others may have these suffixes
)
"""A folder is the first one's that recognises any file in it."""


def read_dump(folder: Path, side: str, scratch: Path) -> DumpIndex | None:
    """Index a folder, or a single file, that another tool dumped; return None when no format recognises it.

    A run of ours (a folder with `run.json`) is no dump. Tensors stay in their files; those that are not dense,
    little-endian bytes are copied below `scratch`. Raises ForeignFormatError when a folder cannot be listed, or holds
    several dumps.
    """
    if not folder.exists() or (folder / "run.json").exists():
        return None
    root = Path(os.path.realpath(folder))
    files = list_files(root)
    dump = DumpFiles(root if root.is_dir() else root.parent, files, Scratch(scratch))
    for dump_format in FORMATS:
        if any(map(dump_format.recognise, files)):
            return build_index(dump_format.tool, root, side, dump_format.index(dump))
    return None
