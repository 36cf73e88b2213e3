"""The way in: tells by a folder's content whose dump it is, and reads it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from aclcmp.orchestrator.dumps.atb.dump import is_atb, read_atb_dump
from aclcmp.orchestrator.dumps.files import files_below
from aclcmp.orchestrator.dumps.index import DumpIndex, dump_index
from aclcmp.orchestrator.dumps.msprobe import is_msprobe, read_msprobe
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.sglang import is_sglang, read_sglang
from aclcmp.orchestrator.dumps.sglang_passes import is_pass, read_passes
from aclcmp.orchestrator.dumps.tensor_files import SUFFIXES, read_tensor_files


def read_dump(folder: Path, side: str, scratch: Path) -> DumpIndex | None:
    """Return a folder that another tool dumped as one side of a comparison; None when it is no known tool's.

    It is taken for the first of these that it holds: a run of ours (`run.json`; None), msprobe's index or data, a
    tensor of ATB's, a file named by SGLang's dumper, a forward pass of SGLang's (`Pass00001.pt`), any `.npy`, `.npz`,
    `.safetensors`, `.pt` or `.pth`. `folder` may be one such file. Tensors are told by their places within the files;
    those that are not dense, little-endian bytes are copied below `scratch`. Raises ForeignFormatError when a folder
    cannot be listed, or holds several dumps.
    """
    if not folder.exists() or (folder / "run.json").exists():
        return None
    root = Path(os.path.realpath(folder))
    files = files_below(root)
    copies = Scratch(scratch)
    if is_msprobe(files):
        return dump_index("msprobe", root, side, *read_msprobe(files, copies))
    if any(map(is_atb, files)):
        return dump_index("ATB", root, side, *read_atb_dump(files, root if root.is_dir() else root.parent))
    if any(map(is_sglang, files)):
        dump = read_sglang(files, copies)
        return dump_index("SGLang's dumper", root, side, dump.found, dump.notes, dump.world_size)
    if any(map(is_pass, files)):
        return dump_index("SGLang's passes", root, side, *read_passes(files, copies))
    if any(file.suffix in SUFFIXES for file in files):
        found, notes, order = read_tensor_files(files, copies)
        return replace(dump_index("tensor files", root, side, found, notes), order=order)
    return None
