"""A folder of numpy's, torch's and safetensors' files, named by whoever saved them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aclcmp.orchestrator.dumps.dump_paths import File
from aclcmp.orchestrator.dumps.format import DumpFiles, DumpFormat, FileContent
from aclcmp.orchestrator.dumps.npy import read_npy, read_npz
from aclcmp.orchestrator.dumps.safetensors import read_safetensors
from aclcmp.orchestrator.dumps.scratch import Scratch


def _read_torch(path: str, scratch: Scratch) -> FileContent:
    from aclcmp.orchestrator.dumps.torch_files import read_torch  # here and not above: other files need none of it

    return read_torch(path, scratch)


_READERS: Mapping[str, Callable[[str, Scratch], FileContent]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".pt": _read_torch,
    ".pth": _read_torch,
}
"""By the file's suffix."""


class TensorFiles(DumpFormat):
    """Files of tensors in any mixture: rank, step and name are what their paths say."""

    tool = "tensor files"

    def recognise(self, file: File) -> bool:
        """Accept the suffixes that have a reader."""
        return file.suffix in _READERS

    def read(self, file: File, dump: DumpFiles) -> FileContent:
        """Read a file as its suffix says, of any other suffix as torch's."""
        return _READERS.get(file.suffix, _read_torch)(file.path, dump.scratch)
