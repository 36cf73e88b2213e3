"""Machine code of an earlier version is left alone."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numba

from aclcmp.orchestrator.compare.kernels.kernel import scan32


def test_an_index_of_other_sources_is_not_unpickled(tmp_path: Path) -> None:
    dispatcher: Any = scan32
    cache_file = copy.copy(dispatcher._cache._cache_file)
    cache_file._index_path = str(tmp_path / "scan32.nbi")
    names_a_class_that_is_gone = b"cno.such.module\nGone\n."
    Path(cache_file._index_path).write_bytes(pickle.dumps(numba.__version__) + names_a_class_that_is_gone)
    assert cache_file._load_index() == {}
    cache_file._save_index({"key": "scan32.1.nbc"})
    assert cache_file._load_index() == {"key": "scan32.1.nbc"}
