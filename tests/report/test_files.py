"""Report files appear whole or not at all, and one that cannot be written takes no other along."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import h5py
import pytest

from aclcmp.labeling import atomic_file
from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.report.files import replace_file, write_reports
from aclcmp.orchestrator.run.directory import RunDir
from tests.report.made_up import decoder_labels, report_of


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_four_files(weird_path: Path) -> None:
    run = RunDir(weird_path, "x")
    files = (run.report_json, run.report_csv, run.report_h5, run.report_xml)
    assert write_reports(report_of(decoder_labels(1, 2)), run).files == files
    assert not write_reports(report_of(decoder_labels(1, 2)), run).problems
    assert names(weird_path) == sorted(path.name for path in files)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["report.json", "report.csv", "report.h5", "report.xml"])
def test_on_a_full_disk_the_older_report_stays_and_the_others_are_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> Path:
        part = path.with_name(f"{path.name}.part")
        if path.name == name:
            part.symlink_to("/dev/full")
        return part

    monkeypatch.setattr(atomic_file, "part_path", full)
    (tmp_path / name).write_text("older")
    done = write_reports(report_of(decoder_labels(4, 4)), RunDir(tmp_path, "x"))
    (problem,) = done.problems
    assert problem.startswith(f"cannot write {tmp_path / name}: ")
    assert (tmp_path / name).read_text() == "older"
    assert len(done.files) == 3 and len(names(tmp_path)) == 4


def test_a_read_only_folder_is_a_line_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for name in ("open", "unlink", "replace"):
        monkeypatch.setattr(Path, name, refuse)
    done = write_reports(report_of([]), RunDir(tmp_path, "x"))
    assert not done.files and len(done.problems) == 4
    assert done.problems[0] == f"cannot write {tmp_path / 'report.json'}: Read-only file system"


def test_h5py_is_one_line_in_the_words_of_the_system(tmp_path: Path) -> None:
    told = pytest.raises(AclcmpError, match=r"^cannot write .*gone: No such file or directory$")
    with told, replace_file(tmp_path / "no" / "gone") as part:
        h5py.File(part, "w")


def test_no_such_folder(tmp_path: Path) -> None:
    done = write_reports(report_of([]), RunDir(tmp_path / "gone", "x"))
    assert not done.files
    assert all(problem.endswith("No such file or directory") for problem in done.problems)


def write_again(folder: Path, times: int) -> None:
    for _ in range(times):
        write_reports(report_of(decoder_labels(4, 8)), RunDir(folder, "x"))


def test_readers_beside_two_writers_see_whole_files(tmp_path: Path) -> None:
    write_again(tmp_path, 1)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_again, args=(tmp_path, 8)) for _ in range(2)]
    for each in writers:
        each.start()
    while any(each.is_alive() for each in writers):
        json.loads((tmp_path / "report.json").read_text())
        with h5py.File(tmp_path / "report.h5", "r", locking=False) as file:
            assert "labels" in file
    assert [each.exitcode for each in writers] == [0, 0]
    assert names(tmp_path) == ["report.csv", "report.h5", "report.json", "report.xml"]
