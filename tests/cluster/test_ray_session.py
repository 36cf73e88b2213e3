"""The private folder of a local Ray: nobody else's, gone with its process, and never taken from a living one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster.ray_session import SessionFolder, base_folder, remove_leftovers

HOLDS = """
import sys, time
from pathlib import Path
from aclcmp.orchestrator.cluster.ray_session import SessionFolder
folder = SessionFolder(Path(sys.argv[1]))
(folder.path / "r").mkdir()
(folder.path / "r" / "gcs_server.out").write_text("x" * 1000)
print(folder.path, flush=True)
time.sleep(600)
"""


def test_private_and_gone(weird_path: Path) -> None:
    folder = SessionFolder(weird_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700 and folder.for_ray.parent == folder.path
    folder.for_ray.mkdir()
    (folder.for_ray / "log").write_text("long")
    folder.remove()
    assert not list(weird_path.iterdir())


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    mine, others = SessionFolder(tmp_path), tmp_path / "aclcmp-ray-others"
    (tmp_path / "aclcmp-ray-late").mkdir(mode=0o755)  # by one of Ray's workers, after the folder was removed
    if os.geteuid() == 0:
        others.mkdir()
        os.chown(others, 12345, 12345)
    else:
        others.write_text("only root can make another user's folder")
    (tmp_path / "aclcmp-ray-file").write_text("a file")
    (tmp_path / "else").mkdir()
    (tmp_path / "aclcmp-ray-link").symlink_to(tmp_path / "else")
    remove_leftovers(tmp_path)
    assert left.is_dir() and mine.path.is_dir()  # in use
    process.send_signal(signal.SIGKILL)
    process.communicate()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        mine.path.name, others.name, "aclcmp-ray-file", "aclcmp-ray-link", "else",
    }  # fmt: skip
    mine.remove()
    remove_leftovers(tmp_path / "absent")


@pytest.mark.parametrize(
    ("environ", "base"),
    [
        ({}, "/tmp"),
        ({"TMPDIR": "/scratch"}, "/scratch"),
        ({"TMPDIR": "/scratch", "RAY_TMPDIR": "/big"}, "/big"),
        ({"RAY_TMPDIR": ""}, "/tmp"),
        ({"TMPDIR": "/a/folder/that/is/too/long/for/sockets"}, "/tmp"),
        ({"TMPDIR": "/目录目录目录"}, "/目录目录目录"),
        ({"TMPDIR": "/目录目录目录目"}, "/tmp"),  # in bytes it is too long
    ],
)
def test_where(environ: dict[str, str], base: str) -> None:
    assert base_folder(environ) == Path(base)
