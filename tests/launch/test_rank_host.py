"""One command under its guard, hosted in this process instead of a Ray actor."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from aclcmp.orchestrator.launch.rank_host import Batch, RankHost, Start, check_vacant
from tests.processes import marked_processes


@pytest.fixture
def host() -> Iterator[RankHost]:
    hosting = RankHost()
    yield hosting
    hosting.stop()


def start(host: RankHost, folder: Path, script: str, log: Path | None = None, inherit: bool = False) -> None:
    environment = {"PATH": os.environ["PATH"], "SHARDS": str(folder)}
    log = log or folder / "logs" / "log"
    host.start(Start(("bash", "-c", script), environment, inherit, folder, log, folder / "shards"))


def end(host: RankHost) -> tuple[list[str], Batch]:
    """All lines and the last batch."""
    lines: list[str] = []
    while True:
        batch = host.next()
        lines += batch.lines
        if batch.done:
            return lines, batch


@pytest.mark.parametrize(
    ("script", "code"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143), ("exec /no/such", 127)]
)
def test_exit_codes(host: RankHost, tmp_path: Path, script: str, code: int) -> None:
    start(host, tmp_path, script)
    last = end(host)[1]
    assert last.exit is not None and (last.exit.code, last.exit.stopped) == (code, False)


def test_a_command_that_is_not_there(host: RankHost, tmp_path: Path) -> None:
    host.start(Start(("no-such-program",), {}, True, tmp_path, tmp_path / "log", tmp_path))
    lines, last = end(host)
    assert lines == ["aclcmp: cannot run no-such-program: No such file or directory"]
    assert last.exit is not None and last.exit.code == 127


def test_stop(host: RankHost, tmp_path: Path) -> None:
    start(host, tmp_path, "setsid sleep 600 & trap '' TERM; echo up; while :; do wait; done")
    assert host.next().lines == ("up",)
    assert len(marked_processes(f"SHARDS={tmp_path}")) >= 3
    host.stop()
    host.stop()
    last = end(host)[1]
    assert last.exit is not None and last.exit.stopped
    assert not marked_processes(f"SHARDS={tmp_path}")


def test_the_exit_is_told_before_the_daemons_are_gone(host: RankHost, tmp_path: Path) -> None:
    start(host, tmp_path, "trap '' TERM; (while :; do sleep 600; done) & exit 3")
    first = host.next()
    assert first.exit is not None and first.exit.code == 3 and not first.done
    end(host)
    assert not marked_processes(f"SHARDS={tmp_path}")


def test_the_command_has_ordinary_signals_and_no_stray_descriptors(host: RankHost, tmp_path: Path) -> None:
    start(
        host, tmp_path, "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0"
    )
    lines, _ = end(host)
    ours = sum(1 << number - 1 for number in signal.valid_signals())  # the C library keeps two to itself
    assert [int(line.split()[-1], 16) & ours for line in lines[:2]] == [0, 0]
    assert lines[2:] == ["4", "/dev/null"]  # 0, 1, 2 and the folder that ls reads


def test_a_full_disk_does_not_stop_the_rank(host: RankHost, tmp_path: Path) -> None:
    start(host, tmp_path, "echo one; sleep 0.2; echo two", log=Path("/dev/full"))
    lines, last = end(host)
    assert lines[0] == "one" and lines[-1] == "two"
    assert "aclcmp: the log /dev/full ends here: No space left on device" in lines
    assert last.exit is not None and last.exit.code == 0


def test_another_host_keeps_its_own_variables(host: RankHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_HOST", "yes")
    monkeypatch.setenv("RAY_JOB_ID", "1")
    start(host, tmp_path, "echo $OF_THIS_HOST $RAY_JOB_ID", inherit=True)
    assert end(host)[0] == ["yes"]


def test_shards_of_an_earlier_run_are_not_written_beside(tmp_path: Path) -> None:
    shards = tmp_path / "run" / "shards"
    check_vacant(shards)
    shards.mkdir(parents=True)
    check_vacant(shards)
    (shards / "rank00002.journal").touch()
    with pytest.raises(FileExistsError, match=r"holds shards of an earlier run \(rank00002\): remove .*/run there"):
        check_vacant(shards)
