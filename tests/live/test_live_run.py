"""Real runs that are followed: stopped early, told where they hang, undisturbed by what goes wrong in following."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from rich.text import Text

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.core.job import Device, Job, Placement, StopAt
from aclcmp.orchestrator.core.run_record import RankState, RunRecord
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.launch.launcher import launch
from aclcmp.orchestrator.live import loop, progress_text
from aclcmp.orchestrator.live.watcher import LiveWatcher
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.run.directory import RunDir
from tests.cli.conftest import Command, aclcmp
from tests.processes import PATIENCE, command_of, descendants, living, wait_until

pytestmark = pytest.mark.ray
__all__ = ["aclcmp"]

SCRIPT = """
import os, sys, time
import numpy as np
from aclcmp import set_label

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
fault, hang, layers, pause = (int(each) for each in sys.argv[1:5])
random = np.random.default_rng(0)
for layer in range(layers):
    whole = random.standard_normal((24, 8 * world)).astype(np.float32)
    local = np.split(whole, world, axis=1)[rank].copy()
    if 0 <= fault <= layer and rank == 1:
        local = local[::-1]
    if layer == hang and rank == 1:
        time.sleep(600)
    set_label("golden", f"layers.{layer}.act", whole)
    set_label("actual", f"layers.{layer}.act", local)
    time.sleep(pause / 1000)
    while hang >= 0 and layer == hang + 1:
        time.sleep(1)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(SCRIPT)
    return path


def test_a_run_ends_at_the_first_divergence_and_its_report_is_that_of_the_shards(
    aclcmp: Command, script: Path, tmp_path: Path
) -> None:
    layers = 600
    done = aclcmp(
        *("--exec", f"python model.py 3 -1 {layers} 200", "--ranks", "2", "--output", "out"),
        *("--stop-at", "first-divergence"),
    )
    assert done.code == 1, done
    assert "first divergence seen: layers.3.act, task 0, rank 1: stopping the ranks" in done.out
    assert "First divergence: layers.3.act (op), task 0, rank 1" in done.out
    assert "Note: stopped at the first divergence that was seen: layers.3.act, task 0, rank 1" in done.out
    first = (tmp_path / "out" / "report.json").read_text()
    told = json.loads(first)
    assert told["verdict"] == "diverged" and told["first_divergence"]["label"] == "layers.3.act"
    assert 4 <= len(told["labels"]) < layers
    assert told["run"]["failure"] is None and {rank["state"] for rank in told["run"]["ranks"]} == {"stopped"}
    assert aclcmp("compare", "out").code == 1
    assert (tmp_path / "out" / "report.json").read_text() == first


class Notes:
    """A screen that writes down what it is told."""

    room: tuple[int, bool] | None = (100, False)

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[str] = []
        self.changed = threading.Condition()

    def on_dump_setup(self, sentences: Sequence[str]) -> None: ...

    def on_start(self, ranks: Sequence[Placement]) -> None: ...

    def on_line(self, rank: int, text: str) -> None: ...

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None: ...

    def say(self, text: str) -> None:
        with self.changed:
            self.said.append(text)
            self.changed.notify_all()

    def show(self, below: Sequence[Text]) -> None:
        with self.changed:
            self.shown = [line.plain for line in below]
            self.changed.notify_all()

    def compared(self) -> int:
        """How many labels the table shows; while all match it has one row."""
        found = re.search(r"layers +\((\d+)\).*bitwise", "\n".join(self.shown))
        return int(found[1]) if found else 0

    def wait(self, labels: int) -> bool:
        """Wait until so many labels are shown."""
        with self.changed:
            return self.changed.wait_for(lambda: self.compared() >= labels, PATIENCE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.open() as opened:
        yield opened


Followed = Callable[..., tuple[RunRecord, Notes, LiveWatcher, RunDir]]


@pytest.fixture
def followed(cluster: Cluster, script: Path, tmp_path: Path) -> Followed:
    """Run the script on two ranks, followed; meanwhile(notes) is called in a thread beside."""

    def run(
        *arguments: int,
        compare: bool = True,
        meanwhile: Callable[[Notes], object] = lambda notes: None,
        timeout: float | None = None,
    ) -> tuple[RunRecord, Notes, LiveWatcher, RunDir]:
        notes, folder = Notes(), RunDir.create(tmp_path / "run")
        terms = JudgingOptions(Policy()) if compare else None
        live = LiveWatcher(folder.shards, notes, terms, StopAt.NEVER, lambda: cluster.head.lost)
        command = (sys.executable, str(script), *map(str, arguments))
        beside = threading.Thread(target=meanwhile, args=(notes,))
        beside.start()
        try:
            job = Job(command, tmp_path, ranks=2, device=Device.CPU, timeout=timeout)
            record = launch(job, cluster, folder, live, live)
        finally:
            live.close()
            beside.join()
        assert notes.shown == [] and not any(thread.name == "live" for thread in threading.enumerate())
        return record, notes, live, folder

    return run


def followers() -> list[psutil.Process]:
    return living(lambda each: "Follower" in command_of(each), descendants())


def ranks_come_first(follower: psutil.Process) -> bool:
    """Whether Linux gives a rank's session more of a core than the follower's, or none of the two has one's own."""
    ranks = living(lambda each: "".join(each.cmdline()[1:2]).endswith("model.py"), descendants())
    if len(ranks) != 2 or {each.nice() for each in ranks} != {psutil.Process().nice()}:
        return False
    shares = Path(f"/proc/{follower.pid}/autogroup")
    return os.getsid(follower.pid) == follower.pid and (not shares.exists() or "nice 15" in shares.read_text())


def test_a_killed_follower_does_no_harm(followed: Followed) -> None:
    seen: list[int] = []

    def kill(notes: Notes) -> None:
        if notes.wait(2):
            found = followers()
            seen.append(len(found))  # one for each node
            seen.append(ranks_come_first(found[0]))
            found[0].kill()
            seen.append(notes.compared())
            if notes.wait(seen[2] + 8):  # another one took over
                seen.append(notes.compared())
        os.kill(os.getpid(), signal.SIGINT)

    record, notes, live, _ = followed(-1, -1, 2000, 250, meanwhile=kill)
    assert len(seen) == 4 and seen[:2] == [1, True]
    assert notes.said == ["interrupted: stopping the ranks (once more to kill them)"]
    assert record.failure is not None and record.failure.what.startswith("interrupted by SIGINT")
    assert len(live.known) >= 2 * seen[3]
    wait_until(lambda: not followers(), followers)


def test_what_goes_wrong_in_following_is_told_once(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no such luck")

    def until_told(notes: Notes) -> None:
        with notes.changed:
            notes.changed.wait_for(lambda: notes.said, PATIENCE)
        threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(loop, "plan_run", broken)
    record, notes, live, _ = followed(-1, -1, 2000, 250, meanwhile=until_told)
    assert {rank.state for rank in record.ranks} == {RankState.STOPPED} and len(live.known) == 0
    assert notes.said == [
        "live comparison stopped: RuntimeError: no such luck; all is compared at the end",
        "interrupted: stopping the ranks (once more to kill them)",
    ]
    wait_until(lambda: not followers(), followers)


def test_a_hang_is_told_and_a_timeout_says_where_ranks_stood(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_text, "STALL_SECONDS", (3.0, 300.0))
    record, notes, _, _ = followed(-1, 2, 20, 50, compare=False, timeout=45)
    words = "rank 0 (host {0}) stands after layers.3.act, rank 1 (host {0}) after layers.1.act"
    words = words.format(record.ranks[0].host)
    assert f"no news for 3 s: {words}: a rank that hangs in a collective?" in notes.said
    assert sum("no news" in each for each in notes.said) == 1
    assert record.failure is not None and record.failure.what.startswith("timed out after 45 s")
    assert record.failure.what.endswith(words)
    wait_until(lambda: not followers(), followers)


def test_a_short_run_is_not_followed(followed: Followed) -> None:
    record, notes, live, _ = followed(-1, -1, 2, 0)
    assert record.failure is None and notes.said == [] and len(live.known) == 0
    wait_until(lambda: not followers(), followers)
