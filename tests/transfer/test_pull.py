"""A host that lies or dies, or whose files change: what is right comes here, the rest is told."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.transfer.courier import Courier, RemoteFile
from aclcmp.orchestrator.transfer.file_selection import FileSelection
from aclcmp.orchestrator.transfer.pull import PIECE_BYTES, HostTransfer, HostTransferResult

pytestmark = pytest.mark.ray

WANTED = FileSelection(Fetch.ALL, frozenset({4}), 1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.open() as opened:
        yield opened


class Far:
    """A host that shares this machine: its files lie in `root`, and how its courier goes wrong is given."""

    def __init__(self, folder: Path, node: str, patch: pytest.MonkeyPatch) -> None:
        self.root = folder / "far"
        self.near = RunDir(folder / "near", "r")
        self.near.root.mkdir()
        self.expected: list[int] = []
        self.done: list[int] = []
        self.stop = threading.Event()
        self._node, self._patch = node, patch

    def write(self, name: str, content: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)

    def bring(self, courier: type[Courier] = Courier) -> HostTransferResult:
        root = self.root

        there = type("There", (courier,), {"__init__": lambda self, _: courier.__init__(self, root)})
        self._patch.setattr("aclcmp.orchestrator.transfer.pull.Courier", there)
        transfer = HostTransfer(
            self.near, self._node, "host far", WANTED, self.stop, self.expected.append, self.done.append
        )
        return transfer.run()

    def here(self) -> dict[str, bytes]:
        files = {path.relative_to(self.near.root): path for path in self.near.root.rglob("*") if path.is_file()}
        return {str(name): path.read_bytes() for name, path in files.items()}


@pytest.fixture
def far(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Far:
    return Far(tmp_path, cluster.driver_node_id, monkeypatch)


LARGE = np.random.default_rng(0).bytes(2 * PIECE_BYTES + 12345)


def test_a_host_that_lies(far: Far, tmp_path: Path) -> None:
    class Liar(Courier):
        def files(self, wanted: FileSelection) -> tuple[list[RemoteFile], int]:
            names = [
                "../evil",
                "run.json",
                "shards/rank00000.h5",
                "shards/../../evil",
                "/tmp/evil",
                "logs/rank00004.log",
            ]
            lies = [RemoteFile(name, 3) for name in names] + [RemoteFile("shards/rank00004.h5", -1)]
            return [*lies, RemoteFile("shards/rank00004.0002.h5", 1 << 40), *Courier.files(self, wanted)[0]], 0

        def piece(self, name: str, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
            return Courier.piece(self, name, offset, 3 if name.endswith("0002.h5") else nbytes)

        def digest(self, name: str) -> int | str:  # type: ignore[override]  # a host that answers what it must not
            return 7 if name.endswith("0001.h5") else Courier.digest(self, name)

    for name in ("shards/rank00004.0001.h5", "shards/rank00004.0002.h5", "dumps/rank00004/a.bin", "logs/rank00004.log"):
        far.write(name, name.encode())
    brought = far.bring(Liar)
    assert far.here().keys() - {f"fetching.part/shards/rank00004.000{n}.h5" for n in (1, 2)} == {
        "dumps/rank00004/a.bin", "logs/rank00004.log"
    }  # fmt: skip
    assert "host far: 6 links or odd names were not brought" in brought.problems
    assert sum("rank00004.0001.h5 was not brought: it changed while it was read" in p for p in brought.problems) == 1
    assert brought.finished and not (tmp_path / "evil").exists()


def test_a_courier_that_dies_once_is_replaced_and_one_that_always_does_is_told(far: Far, tmp_path: Path) -> None:
    far.write("shards/rank00004.h5", LARGE)
    far.write("shards/rank00004.journal", b"journal")
    mark = tmp_path / "died"

    class Mortal(Courier):
        def piece(self, name: str, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
            if offset == PIECE_BYTES and not mark.exists():
                mark.touch()
                os._exit(1)
            return Courier.piece(self, name, offset, nbytes)

    class Doomed(Courier):
        def piece(self, name: str, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
            os._exit(1)

    brought = far.bring(Doomed)
    assert not brought.finished and "host far stopped answering (ActorDiedError)" in brought.problems
    brought = far.bring(Mortal)
    assert brought.finished and not brought.problems and mark.exists()
    assert (brought.files, brought.nbytes) == (2, len(LARGE) + 7)
    assert far.here() == {"shards/rank00004.h5": LARGE, "shards/rank00004.journal": b"journal"}
    assert sum(far.expected) // 2 == len(LARGE) + 7
    again = far.bring()
    assert (again.files, again.here, again.nbytes) == (0, 2, 0)


def test_what_is_here_in_part_is_not_brought_again(far: Far) -> None:
    far.write("dumps/rank00004/x.bin", LARGE)
    far.write("dumps/rank00004/y.bin", LARGE)
    far.write("dumps/rank00004/empty", b"")
    parts = far.near.fetching / "dumps" / "rank00004"
    parts.mkdir(parents=True)
    (parts / "x.bin").write_bytes(LARGE[: PIECE_BYTES + 1])
    (parts / "y.bin").write_bytes(b"?" + LARGE[1:] + b"more")
    brought = far.bring()
    assert brought.nbytes == 2 * len(LARGE) - PIECE_BYTES - 1 and brought.files == 3
    assert {name: len(content) for name, content in far.here().items()} == {
        "dumps/rank00004/x.bin": len(LARGE), "dumps/rank00004/y.bin": len(LARGE), "dumps/rank00004/empty": 0
    }  # fmt: skip
    assert far.here()["dumps/rank00004/y.bin"] == LARGE and sum(far.done) == 2 * len(LARGE)


def test_a_cut_keeps_the_part(far: Far) -> None:
    far.write("dumps/rank00004/x.bin", LARGE)
    far.stop.set()
    assert not far.bring().finished and not far.near.fetching.exists()
    far.stop.clear()

    class Slow(Courier):
        def piece(self, name: str, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
            if offset:
                threading.Event().wait(600)
            return Courier.piece(self, name, offset, nbytes)

    thread = threading.Thread(target=far.bring, args=(Slow,))
    thread.start()
    while not any(far.done):
        thread.join(0.02)
    far.stop.set()
    thread.join()
    assert far.here() == {"fetching.part/dumps/rank00004/x.bin": LARGE[:PIECE_BYTES]}
