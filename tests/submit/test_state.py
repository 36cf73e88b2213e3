"""What is remembered of jobs: who, where, never a secret; a damaged file harms nobody."""

import multiprocessing
import stat
from pathlib import Path

import pytest

from aclcmp.orchestrator.submit.state import KnownJob, read_jobs, recall, remember, state_file


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of mine"))
    return tmp_path


def job(number: int) -> KnownJob:
    return KnownJob(job_id=f"aclcmp-{number}", address="http://h:1", file="f", output="/o", submitted=number)


def test_remembered_and_recalled() -> None:
    assert read_jobs() == [] and recall("aclcmp-1") is None
    remember(job(1))
    remember(job(2))
    remember(job(1))
    assert [each.job_id for each in read_jobs()] == ["aclcmp-2", "aclcmp-1"]
    assert recall("aclcmp-2") == job(2)
    assert stat.S_IMODE(state_file().stat().st_mode) == 0o600


def test_the_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_file() == tmp_path / ".local/state/aclcmp/jobs.json"


def test_no_place_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file/below"))
    assert read_jobs() == []
    with pytest.raises(OSError):
        remember(job(1))

    def nowhere(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setattr(Path, "expanduser", nowhere)
    monkeypatch.chdir(tmp_path)
    assert read_jobs() == []
    with pytest.raises(OSError, match="there is no home folder"):
        remember(job(1))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_oldest_go() -> None:
    for number in range(205):
        remember(job(number))
    found = read_jobs()
    assert len(found) == 200 and found[0].job_id == "aclcmp-5"


def test_a_damaged_file_is_put_aside() -> None:
    remember(job(1))
    state_file().write_text("{half")
    assert read_jobs() == []
    remember(job(2))
    assert len(read_jobs()) == 1 and state_file().with_suffix(".damaged").read_text() == "{half"


def _remember_some(first: int) -> None:
    for number in range(first, first + 20):
        remember(job(number))


def test_two_at_once_lose_nothing() -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_remember_some, args=(first,)) for first in (0, 100)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(read_jobs()) == 40
