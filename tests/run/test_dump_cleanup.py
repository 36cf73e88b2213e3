"""Taking dumps away: only what was named, only below the folder."""

from __future__ import annotations

import os
from pathlib import Path

from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.dump_cleanup import remove_dumps


def dump(path: Path, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_files_go_and_the_folders_that_they_leave_empty(weird_path: Path) -> None:
    root = weird_path / "dumps"
    one = dump(root / "rank00000/tensors/1_1/0_Op/after/outtensor0.bin", 7)
    two = dump(root / "rank00000/tensors/1_1/0_Op/before/intensor0.bin", 5)
    other = dump(root / "rank00000/tensors/1_1/1_Op/after/outtensor0.bin")
    assert remove_dumps([one, two, one, root / "nothing.bin"], root) == (2, 12)
    assert not (root / "rank00000/tensors/1_1/0_Op").exists() and other.exists()
    assert remove_dumps([other], root) == (1, 10)
    assert root.is_dir() and not list(root.iterdir())
    assert remove_dumps([], root) == remove_dumps([other], weird_path / "no/such") == (0, 0)


def test_nothing_outside_goes(tmp_path: Path) -> None:
    root, outside = tmp_path / "dumps", tmp_path / "outside"
    kept = dump(outside / "a.bin")
    dump(root / "b.bin")
    (root / "out").symlink_to(outside)
    link = root / "link.bin"
    link.symlink_to(kept)
    (tmp_path / "dumps-too").mkdir()
    sibling = dump(tmp_path / "dumps-too/c.bin")
    files = [kept, root / "out/a.bin", root / "../outside/a.bin", sibling, root, root / "out", root / ".."]
    assert remove_dumps(files[:-2], root) == (0, 0)
    assert remove_dumps([link, root / "out"], root) == (2, 0)  # the links themselves lie within
    assert kept.read_bytes() == b"x" * 10 and sibling.exists() and (root / "b.bin").exists()
    assert remove_dumps(files, root) == (0, 0)


def test_a_folder_that_is_named_through_a_link(tmp_path: Path) -> None:
    file = dump(tmp_path / "real/run/dumps/a/b.bin")
    (tmp_path / "run").symlink_to(tmp_path / "real/run")
    assert remove_dumps([tmp_path / "run/dumps/a/b.bin"], tmp_path / "run/dumps") == (1, 10)
    assert not file.parent.exists()


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.bin")
    (tmp_path / "folder.bin").mkdir()
    assert remove_dumps([tmp_path / "fifo.bin", tmp_path / "folder.bin"], tmp_path) == (0, 0)
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folders_of_a_run(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    assert not run.dumps.exists()
    elsewhere = tmp_path / "before" / "dumps" / "rank00003"
    assert run.dumps_now_at(elsewhere) == elsewhere
    for folder in (run.node_dumps(2), run.rank_dumps(3)):
        folder.mkdir(parents=True)
    assert run.dumps_now_at(elsewhere) == run.rank_dumps(3)  # the run's directory was moved
    assert run.dumps_now_at(tmp_path / "atb_temp" / "rank00003") == tmp_path / "atb_temp" / "rank00003"
    assert run.is_of_one_rank(run.rank_dumps(3)) and not run.is_of_one_rank(run.node_dumps(2))
    assert not run.is_of_one_rank(elsewhere)
