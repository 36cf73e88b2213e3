"""Which run is the latest, and what of old ones may be removed."""

import json
from pathlib import Path

import pytest

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.prune import old_data, remove
from aclcmp.orchestrator.run.record_file import load_record, save_record
from aclcmp.orchestrator.run.run_list import latest_run, latest_two, runs_in
from tests.recorded import record_run

HEAD = '{"schema": 1,\n "verdict": "diverged",\n "first_divergence": {"task": 2, "label": "a"},\n "labels": ['


@pytest.fixture
def here(weird_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(weird_path)
    return weird_path


def make(folder: Path, time: float, *, compared: bool = True, golden: str = "") -> RunDir:
    """Make a run that ended at a time, with a shard of 1,000 bytes."""
    run = RunDir.create(folder)
    record_run(run, "x.py", 1)
    save_record(load_record(run.record).model_copy(update={"finished": time, "golden": golden}), run.record)
    (run.shards / "rank00000.h5").write_bytes(bytes(1000))
    if compared:
        run.report_json.write_text(f"{HEAD}{'x' * 100_000}")  # of a large report only the beginning is read
        run.report_h5.write_bytes(b"")
    return run


def test_the_latest_by_time_and_by_the_link(here: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        latest_run()
    make(here / "aclcmp-runs" / "b", 1.0)
    make(here / "aclcmp-runs" / "a", 2.0)
    assert latest_run() == Path("aclcmp-runs/a") and latest_two() == (Path("aclcmp-runs/b"), Path("aclcmp-runs/a"))
    make(here / "elsewhere", 3.0)
    assert latest_run() == Path("elsewhere"), "the link leads to it"
    make(here / "elsewhere" / "local", 4.0)
    assert latest_run() == Path("elsewhere"), "what lies within a run is a part of it"
    make(here / "aclcmp-runs" / "c", 5.0, compared=False)
    assert latest_run() == Path("aclcmp-runs/c") and latest_two() == (Path("aclcmp-runs/b"), Path("aclcmp-runs/a"))
    (here / "aclcmp-runs" / "still-runs").mkdir()
    (here / "aclcmp-runs" / "file").touch()
    assert [each.run.root.name for each in runs_in(here / "aclcmp-runs")] == ["b", "a", "c"]


def test_a_folder_called_latest_is_left_alone(here: Path) -> None:
    (here / "aclcmp-runs" / "latest").mkdir(parents=True)
    make(here / "aclcmp-runs" / "a", 1.0)
    assert not (here / "aclcmp-runs" / "latest").is_symlink() and latest_run() == Path("aclcmp-runs/a")
    assert {each.name for each in Path("aclcmp-runs").iterdir()} == {"a", "latest"}


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", HEAD.replace('"diverged"', "3"), HEAD.replace('"a"', "null"), "[" * 9999]
)
def test_a_damaged_report_has_no_head(here: Path, text: str) -> None:
    run = make(here / "runs" / "a", 1.0)
    run.report_json.write_text(text)
    run.record.write_text("{")
    (found,) = runs_in(here / "runs")
    assert found.head is None and found.record is None


def test_what_may_be_removed(here: Path) -> None:
    """Never what a kept run needs, what nobody compared yet, or what a link leads to."""
    runs = here / "aclcmp-runs"
    old = make(runs / "old", 1.0)
    make(old.local, 1.5)
    serves = make(runs / "serves", 2.0)
    make(runs / "fresh", 3.0, compared=False)
    linked = make(runs / "linked", 4.0)
    data = make(here / "data", 4.0)
    (linked.shards / "rank00000.h5").unlink()
    linked.shards.rmdir()
    linked.shards.symlink_to(data.shards)
    make(runs / "new", 5.0, golden=str(serves.root))
    found = {each.run.root.name: each for each in old_data(runs, 1)}
    assert {name: each.why_kept for name, each in found.items()} == {
        "old": "",
        "serves": "its golden values serve new",
        "fresh": "it was not compared",
    }
    assert found["old"].size == 2000, "the run within it counts too"
    remove(found["old"])
    assert not old.shards.exists() and not (old.local / "shards").exists() and old.report_json.exists()
    assert (data.shards / "rank00000.h5").exists() and serves.shards.exists()
    assert "old" not in [each.run.root.name for each in old_data(runs, 1)]
    assert json.loads(old.record.read_text())["run_id"] == "run"
