"""Report files appear whole or not at all."""

import errno
import os
from pathlib import Path

import h5py
import pytest

from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.report.files import replacing, write_reports
from aclcmp.orchestrator.rundir import RunDir
from tests.report.made_up import decoder_labels, report_of


def test_four_files(weird_path: Path) -> None:
    run = RunDir(weird_path, "x")
    files = (run.report_json, run.report_csv, run.report_h5, run.report_xml)
    assert write_reports(report_of(decoder_labels(1, 2)), run) == files
    write_reports(report_of(decoder_labels(1, 2)), run)
    assert sorted(path.name for path in weird_path.iterdir()) == sorted(path.name for path in files)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", ["report.json", "report.csv", "report.h5", "report.xml"])
def test_a_full_disk_is_one_line_and_the_older_report_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("older")
    (tmp_path / f"{name}.part").symlink_to("/dev/full")
    with pytest.raises(AclcmpError, match=f"cannot write .*{name}"):
        write_reports(report_of(decoder_labels(4, 4)), RunDir(tmp_path, "x"))
    assert (tmp_path / name).read_text() == "older"
    assert not (tmp_path / f"{name}.part").exists()


def test_a_read_only_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for name in ("open", "unlink"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(AclcmpError, match=r"cannot write .*report\.json: Read-only file system"):
        write_reports(report_of([]), RunDir(tmp_path, "x"))


def test_h5py_is_one_line_in_the_words_of_the_system(tmp_path: Path) -> None:
    told = pytest.raises(AclcmpError, match=r"^cannot write .*gone: No such file or directory$")
    with told, replacing(tmp_path / "no" / "gone") as part:
        h5py.File(part, "w")


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(AclcmpError, match=r"report\.json: No such file or directory"):
        write_reports(report_of([]), RunDir(tmp_path / "gone", "x"))
