"""Commands under their guards, hosted in this process instead of a Ray actor."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from aclcmp.orchestrator.launch.guarded_command import Batch, Start
from aclcmp.orchestrator.launch.rank_host import RankHost, check_vacant
from tests.processes import marked_processes


@pytest.fixture
def host() -> Iterator[RankHost]:
    hosting = RankHost(1)
    yield hosting
    hosting.stop()


def start_of(folder: Path, *command: str, log: Path | None = None, inherit: bool = False) -> Start:
    environment = {"PATH": os.environ["PATH"], "SHARDS": str(folder)}
    return Start(command, environment, inherit, folder, log or folder / "logs" / "log", folder / "shards")


def start(host: RankHost, folder: Path, script: str, log: Path | None = None, inherit: bool = False) -> None:
    host.start([start_of(folder, "bash", "-c", script, log=log, inherit=inherit)])


def end(host: RankHost) -> tuple[list[str], Batch]:
    """All lines of the only command, and its last batch."""
    lines: list[str] = []
    while True:
        if (batch := host.next().get(0)) is None:
            continue
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
    host.start([Start(("no-such-program",), {}, True, tmp_path, tmp_path / "log", tmp_path)])
    lines, last = end(host)
    assert lines == ["aclcmp: cannot run no-such-program: No such file or directory"]
    assert last.exit is not None and last.exit.code == 127


def test_stop(host: RankHost, tmp_path: Path) -> None:
    start(host, tmp_path, "setsid sleep 600 & trap '' TERM; echo up; while :; do wait; done")
    assert host.next()[0].lines == ("up",)
    assert len(marked_processes(f"SHARDS={tmp_path}")) >= 3
    host.stop()
    host.stop()
    last = end(host)[1]
    assert last.exit is not None and last.exit.stopped
    assert not marked_processes(f"SHARDS={tmp_path}")


def test_several_commands_are_told_apart_and_end_one_by_one(host: RankHost, tmp_path: Path) -> None:
    """Each command's lines are its own, in its log too, whatever the others write at the same time."""
    script = f'for i in $(seq 5000); do echo "$0 $i"; done; read < {tmp_path}/gate$0'
    for number in range(4):
        os.mkfifo(tmp_path / f"gate{number}")
    logs = [tmp_path / f"log{number}" for number in range(4)]
    host.start([start_of(tmp_path, "bash", "-c", script, str(number), log=log) for number, log in enumerate(logs)])
    lines: dict[int, list[str]] = {number: [] for number in range(4)}
    hidden = dict.fromkeys(range(4), 0)
    ends: list[int] = []
    while len(ends) < 4:
        for number, batch in host.next().items():
            assert number not in ends
            lines[number] += batch.lines
            hidden[number] += batch.hidden
            if batch.done:
                assert batch.exit is not None and batch.exit.code == 0
                ends.append(number)
        if all(len(lines[number]) + hidden[number] == 5000 for number in range(4)) and len(ends) < 4:
            (tmp_path / f"gate{(2 + len(ends)) % 4}").write_text("go\n")
    assert ends == [2, 3, 0, 1]
    for number in range(4):
        printed = [f"{number} {i}" for i in range(1, 5001)]
        assert logs[number].read_text().splitlines() == printed
        assert lines[number] == printed[hidden[number] :]


def test_stop_ends_all_commands(host: RankHost, tmp_path: Path) -> None:
    host.start([start_of(tmp_path, "sleep", "600", log=tmp_path / f"log{number}") for number in range(3)])
    host.stop()
    done: set[int] = set()
    while len(done) < 3:
        for number, batch in host.next().items():
            if batch.done:
                assert batch.exit is not None and batch.exit.stopped
                done.add(number)
    assert not marked_processes(f"SHARDS={tmp_path}")


def test_the_exit_is_told_before_the_daemons_are_gone(host: RankHost, tmp_path: Path) -> None:
    start(host, tmp_path, "trap '' TERM; (while :; do sleep 600; done) & exit 3")
    first = host.next()[0]
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
