"""Names from another host are data: only files of its own ranks, below the run directory, through no link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.job import Fetch
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.transfer.courier import Courier, RemoteFile
from aclcmp.orchestrator.transfer.fetched_ranks import add_fetched_ranks, fetched_ranks
from aclcmp.orchestrator.transfer.file_selection import FileSelection
from aclcmp.orchestrator.transfer.safe_open import digest_of, move_file, open_below, size_of

ALL = FileSelection(Fetch.ALL, frozenset({4, 5}), 1)
SHARDS = FileSelection(Fetch.SHARDS, frozenset({4, 5}), 1)

FILES = ["shards/rank00004.h5", "shards/rank00005-2.0001.h5", "shards/rank00004.journal", "shards/rank00004-1.journal"]
MORE = ["logs/rank00004.log", "logs/node00001.log", "dumps/rank00005/a/b.bin", "dumps/node00001/x.bin"]


@pytest.mark.parametrize("name", FILES + MORE)
def test_files_of_its_own_ranks(name: str) -> None:
    assert ALL.allows(name)
    assert SHARDS.allows(name) == (name in FILES)
    assert not FileSelection(Fetch.REPORT, ALL.ranks, 1).allows(name)


@pytest.mark.parametrize(
    "name",
    [
        "run.json", "report.json", "shards", "shards/", "", ".", "..", "/etc/passwd", "shards/../run.json",
        "../shards/rank00004.h5", "shards//rank00004.h5", "shards/./rank00004.h5", "/shards/rank00004.h5",
        "shards/rank00000.h5", "shards/rank00004.h5/x", "shards/x/rank00004.h5", "shards/rank00004.reserve",
        "shards/rank00004.h5.part", "shards/rank4.h5", "shards/rank00004.h5\n", "shards/rank00004\x00.h5",
        "shards\\rank00004.h5", "logs/rank00000.log", "logs/node00000.log", "logs/rank00004.log/x", "logs/x.log",
        "dumps/rank00005", "dumps/rank00000/a.bin", "dumps/a.bin", "dumps/rank00005/../../run.json",
        "dumps/rank00005/", "dumps/rank00005/\x1b[2J", f"dumps/rank00005/{'x' * 300}", "dumps/rank00005/\udcff",
        "logs/rank٠٠٠٠٤.log", "dumps/rank٠٠٠٠٥/a",
    ],
)  # fmt: skip
def test_other_names(name: str) -> None:
    assert not ALL.allows(name)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run directory with files of two ranks, a link, and what is nobody's."""
    run = RunDir(tmp_path / "run", "r")
    for name in (*FILES, *MORE, "shards/rank00000.h5", "shards/rank00004.reserve", "logs/rank00000.log", "run.json"):
        (run.root / name).parent.mkdir(parents=True, exist_ok=True)
        (run.root / name).write_text(name)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    (run.dumps / "rank00005" / "link.bin").symlink_to(tmp_path / "secret" / "key")
    (run.dumps / "rank00004").symlink_to(tmp_path / "secret")
    (run.shards / "rank00005.h5").symlink_to(tmp_path / "secret" / "key")
    os.mkfifo(run.dumps / "rank00005" / "pipe")
    return run


def test_a_host_lists_its_own_ordinary_files(run: RunDir) -> None:
    files, refused = Courier(run.root).files(ALL)
    assert sorted(files, key=lambda file: file.name) == [RemoteFile(name, len(name)) for name in sorted(FILES + MORE)]
    assert refused == 3
    assert {file.name for file in Courier(run.root).files(SHARDS)[0]} == set(FILES)
    assert Courier(run.root / "none").files(ALL) == ([], 0)


@pytest.mark.parametrize(
    "name", ["dumps/rank00005/link.bin", "dumps/rank00004/key", "shards/rank00005.h5", "dumps/rank00005/pipe", "shards"]
)
def test_a_host_reads_through_no_link(run: RunDir, name: str) -> None:
    courier = Courier(run.root)
    with pytest.raises(OSError):
        courier.piece(name, 0, 100)
    with pytest.raises(OSError):
        courier.digest(name)


def test_pieces_and_hashes(run: RunDir) -> None:
    courier, name = Courier(run.root), MORE[2]
    assert bytes(courier.piece(name, 2, 5)) == name.encode()[2:7]
    assert len(courier.piece(name, 1000, 5)) == 0
    assert courier.digest(name) == digest_of(run.root, name) != courier.digest(MORE[3])


def test_nothing_is_written_through_a_link(run: RunDir, tmp_path: Path) -> None:
    for name in ("dumps/rank00004/new.bin", "shards/rank00005.h5", "run.json/x"):
        with pytest.raises(OSError), open_below(run.root, name, os.O_RDWR | os.O_CREAT):
            pass
    with open_below(run.fetching.parent, "fetching.part/shards/rank00005.h5", os.O_RDWR | os.O_CREAT) as file:
        os.pwrite(file, b"new", 0)
    move_file(run.fetching, "shards/rank00005.h5", run.root, "shards/rank00005.h5")  # the link itself is replaced
    assert (run.shards / "rank00005.h5").read_text() == "new" and size_of(run.root, "shards/rank00005.h5") == 3
    assert not (run.shards / "rank00005.h5").is_symlink()
    assert sorted(path.name for path in (tmp_path / "secret").iterdir()) == ["key"]
    assert (tmp_path / "secret" / "key").read_text() == "secret"
    with open_below(run.root, "fetching.part/dumps/rank00004/key", os.O_RDWR | os.O_CREAT):
        pass
    with pytest.raises(OSError):
        move_file(run.fetching, "dumps/rank00004/key", run.root, "dumps/rank00004/key")


def test_ranks_that_were_brought(run: RunDir) -> None:
    assert fetched_ranks(run) == frozenset()
    add_fetched_ranks(run, {4, 5})
    add_fetched_ranks(run, {7})
    assert fetched_ranks(run) == {4, 5, 7}
    for damage in ("", "{", "[]", '{"schema": 2, "ranks": [1]}', '{"schema": 1}', '{"schema": 1, "ranks": 3}'):
        run.fetched.write_text(damage)
        assert fetched_ranks(run) == frozenset()
