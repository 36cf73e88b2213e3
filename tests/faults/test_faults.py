"""Whatever happens to a rank, a host or the driver: it is told, the rest stops, and nothing recorded is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import kinds
from tests.faults.kinds import Fault, let_happen
from tests.faults.scene import Scene, scene
from tests.netns import hosts, start_ray

pytestmark = pytest.mark.netns


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two hosts with a Ray over both that outlives what happens to the runs on it."""
    with scene(tmp_path_factory.mktemp("hosts")) as made:
        yield made


def is_all_there(stage: Scene, ranks: str = "0123") -> None:
    """Check that all that these ranks said they had labelled is in the report."""
    said, compared = stage.labelled_layers(), stage.compared_layers()
    for rank in map(int, ranks):
        assert said[rank] and compared[rank] >= said[rank], (rank, said, compared, stage.printed)


@pytest.mark.parametrize("fault", [kinds.RANK, kinds.DEAF, kinds.STUCK, kinds.CTRL_C], ids=lambda fault: fault.name)
def test_what_happens_to_ranks(shared: Scene, fault: Fault) -> None:
    assert let_happen(shared, fault, f"run-{fault.name.replace(' ', '-')}").code == 3, shared.printed
    is_all_there(shared)
    states = {rank["rank"]: rank["state"] for rank in shared.record()["ranks"]}
    if fault in (kinds.RANK, kinds.DEAF):
        assert states == {0: "stopped", 1: "stopped", 2: "stopped", 3: "failed"}


def test_a_killed_driver_leaves_nothing_behind_and_can_be_made_up_for(shared: Scene) -> None:
    let_happen(shared, kinds.DRIVER, "driverless")
    code, printed = shared.command("compare", "driverless", "--address", shared.address)
    assert code == 3 and "aclcmp itself was killed before the run ended" in printed, printed
    is_all_there(shared)


def test_a_full_disk_costs_labels_that_are_named_and_nothing_else(shared: Scene) -> None:
    assert let_happen(shared, kinds.DISK, "full").code == 4, shared.printed
    assert shared.labelled_layers() == dict.fromkeys(range(4), 12)  # the script itself went on to its end
    found: dict[str, set[str]] = {rank: set() for rank in "0123"}
    for label in shared.report()["labels"]:
        for rank, verdict in label["ranks"].items():
            found[rank].add(verdict["status"])
    assert found["0"] == found["1"] == {"match"} and "failed" in found["2"] | found["3"], found


def test_killed_compare_actors_are_replaced(shared: Scene) -> None:
    shared.start("replaced", "plain", "12", "0", "32768")
    killed: list[int] = []

    def kill_those_of_b() -> bool | None:
        for process in shared.ray_on(shared.hosts[1], "ray::CompareActor"):
            if len(killed) < 2:
                process.kill()
                killed.append(process.pid)
        return True if len(killed) == 2 else None

    assert shared.until(kill_those_of_b), shared.printed
    assert shared.wait_for_end()[0] == 0, shared.printed
    assert shared.compared_layers() == dict.fromkeys(range(4), 12)


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#define OFF 3600
int clock_gettime(clockid_t which, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, now);
    if (!failed && which == CLOCK_REALTIME) now->tv_sec -= OFF;
    return failed;
}
time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
"""
"""A clock that is an hour behind, for processes that load it."""


def test_a_host_whose_clock_is_off(tmp_path: Path) -> None:
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    with hosts(tmp_path) as made:
        start_ray(made[0], "", npus=2)
        address = f"{made[0].ip}:6379"
        start_ray(made[1], address, npus=2, environ={"LD_PRELOAD": str(library)})
        stage = Scene(made, address)
        stage.write_script()
        stage.start("late", "plain", "4", "0.1", "48")
        assert stage.wait_for_end()[0] == 0, stage.printed
        record = stage.record()
        assert stage.compared_layers() == dict.fromkeys(range(4), 4)
        for rank in record["ranks"]:
            assert record["started"] <= rank["started"] <= rank["finished"] <= record["finished"], rank
        clock = made[1].run("env", f"LD_PRELOAD={library}", sys.executable, "-c", "import time; print(time.time())")
        assert float(clock.out) < record["started"] - 3000  # it was off indeed
        _, printed = stage.command("doctor", "--address", address)
        assert "clock" in printed and "acl-b" in printed, printed


def test_no_file_of_a_run_holds_the_token(shared: Scene) -> None:
    token = shared.hosts[0].environ["RAY_AUTH_TOKEN"].encode()
    shared.start("secret", "plain", "2", "0", "8", options=("--env", "MY_API_KEY=hidden-from-all-files"))
    assert shared.wait_for_end()[0] == 0, shared.printed
    files = [path for host in shared.hosts for path in (host.files / "secret").rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert token not in content and b"hidden-from-all-files" not in content, path
    assert token.decode() not in shared.printed and "hidden-from-all-files" not in shared.printed


def test_a_lost_host_is_named_and_its_labels_come_back_with_it(tmp_path: Path) -> None:
    with scene(tmp_path) as stage:
        assert let_happen(stage, kinds.HOST, "lost").code == 3
        is_all_there(stage, "01")
        _is_missing_on_b(stage)
        start_ray(stage.hosts[1], stage.address, npus=2)
        code, printed = stage.command("compare", "lost", "--address", stage.address)
        assert code == 3, printed
        is_all_there(stage)


def test_a_pulled_cable_is_told_and_nothing_stays_when_it_is_back(tmp_path: Path) -> None:
    with scene(tmp_path) as stage:
        assert let_happen(stage, kinds.CABLE, "cut").code == 3
        is_all_there(stage, "01")
        _is_missing_on_b(stage)
        stage.hosts[1].cable("up")
        stage.wait_until_empty(*stage.hosts)


def test_without_its_head_a_run_is_compared_where_the_driver_is(tmp_path: Path) -> None:
    with scene(tmp_path) as stage:
        assert let_happen(stage, kinds.HEAD, "headless").code == 3
        assert "comparing what lies on this host" in stage.printed
        is_all_there(stage, "01")
        _is_missing_on_b(stage)


def _is_missing_on_b(stage: Scene) -> None:
    """Check that nothing of host b is green, and that the host is named."""
    for label in stage.report()["labels"]:
        for rank, found in label["ranks"].items():
            assert rank in "01" or found["status"] in ("missing", "failed"), (label["label"], rank, found)
    assert "acl-b" in stage.printed
    assert any({"2", "3"} & label["ranks"].keys() for label in stage.report()["labels"])
