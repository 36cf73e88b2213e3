"""Faults of a run over two hosts, and what the user must read of each. Shared by the tests and the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.faults.scene import LONG, Scene
from tests.processes import kill, living


@dataclass(frozen=True)
class Times:
    """Seconds from the fault to what follows it."""

    told: float | None
    """The user reads of it; None: there is nothing to read, or the command itself is gone."""
    stopped: float | None
    """No process of a rank is left on any host that can be reached; None: the ranks go on."""
    code: int | None
    """The command's exit code; None: it is gone."""
    reported: float | None
    """The command has ended, its report written; None: it is gone."""


RANKS = 4


@dataclass(frozen=True)
class Fault:
    """One fault that happens while four ranks run on two hosts, ranks 2 and 3 on host acl-b."""

    name: str
    happens: Callable[[Scene], object]
    told: str
    """Pattern of the line that the user reads of it while the command goes on; "": there is none."""
    script: tuple[str, ...] = ("plain", *LONG)
    options: tuple[str, ...] = ()
    before: Callable[[Scene, str], object] = lambda scene, output: None
    """Prepares the hosts before the run starts; it gets the name of the run's folder."""
    when: Callable[[Scene], object] = lambda scene: None
    """Waits for something, once every rank has labelled something."""
    goes_on: bool = False
    """True if the ranks are not stopped."""
    gone: bool = False
    """True if the command itself is gone."""
    ends_ray: bool = False
    """True if the cluster is not whole any more."""
    left_on: tuple[str, ...] = ()
    """Hosts that cannot be reached, on which something may stay."""


def _kill_rank(scene: Scene) -> None:
    ranks = scene.ranks_on(scene.hosts[1])
    kill(living(lambda each: each.environ()["RANK"] == "3" and each.cmdline()[1:2] == ["model.py"], ranks))


def _kill_head(scene: Scene) -> None:
    kill(scene.ray_on(scene.hosts[0], "gcs_server"))


def _kill_host(scene: Scene) -> None:
    kill(scene.hosts[1].processes())


def _small_disk(scene: Scene, output: str) -> None:
    """Give the shards of host b a small disk of their own."""
    shards = f"{output}/shards"
    assert scene.hosts[1].run("mkdir", "-p", shards).code == 0
    assert scene.hosts[1].run("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", shards).code == 0


def _fill_disk(scene: Scene) -> None:
    scene.hosts[1].run("dd", "if=/dev/zero", f"of={scene.output}/shards/filler", "bs=64k", "count=1000")


def _comparers(scene: Scene) -> list[psutil.Process]:
    return scene.ray_on(scene.hosts[1], "ray::CompareActor")


def _kill_comparer(scene: Scene) -> None:
    found = _comparers(scene)
    assert found, scene.printed
    kill(found)


RANK = Fault(
    "a rank is killed", _kill_rank, r"rank 3 \(host acl-b, device 1\) exited with code 137 .*: stopping the others"
)
DEAF = Fault(
    "the same, and the others ignore SIGTERM",
    _kill_rank,
    r"rank 3 \(host acl-b, device 1\) exited with code 137 .*: stopping the others",
    script=("deaf", *LONG),
)
STUCK = Fault(
    "a rank does not come to a collective (--timeout 40)",
    lambda scene: scene.wait_for_line("stuck"),
    r"timed out after 40 s; still running: rank 0 .*: stopping the ranks",
    script=("stuck", *LONG),
    options=("--timeout", "40"),
)
CTRL_C = Fault("Ctrl-C", Scene.interrupt, "interrupted: stopping the ranks")
DRIVER = Fault("the driver is killed", Scene.kill_driver, "", gone=True)
HOST = Fault(
    "all processes of a host are killed",
    _kill_host,
    r"rank [23] \(host acl-b, device [01]\) was lost.*: stopping",
    ends_ray=True,
)
CABLE = Fault(
    "a host's cable is pulled",
    lambda scene: scene.hosts[1].cable("down"),
    r"no word from host acl-b \(10.77.0.2, ranks 2-3\) for 10 s",
    ends_ray=True,
    left_on=("acl-b",),
)
HEAD = Fault(
    "the cluster's head is killed", _kill_head, r"head \(10.77.0.1:6379\) has not answered.*: stopping", ends_ray=True
)
DISK = Fault(
    "a host's disk is filled",
    _fill_disk,
    r"\[rank[23]\].*No space left on device",
    script=("plain", "12", "1", "48"),
    before=_small_disk,
    goes_on=True,
)
COMPARER = Fault(
    "a compare actor is killed",
    _kill_comparer,
    "",
    script=("plain", "12", "0", "32768"),
    when=lambda scene: scene.until(lambda: _comparers(scene) or None),
    goes_on=True,
)

ALL = (RANK, DEAF, STUCK, CTRL_C, DRIVER, HOST, CABLE, HEAD, DISK, COMPARER)


def let_happen(scene: Scene, fault: Fault, output: str) -> Times:
    """Run until every rank has labelled something, let the fault happen, and return the seconds to what follows."""
    fault.before(scene, output)
    scene.start(output, *fault.script, options=fault.options)
    for rank in range(RANKS):
        scene.wait_for_line(rf"\[rank{rank}\] labelled 2")
    fault.when(scene)
    scene.happen(lambda: fault.happens(scene))
    reachable = [host for host in scene.hosts if host.name not in fault.left_on]
    told = scene.wait_for_line(fault.told) if fault.told else None
    stopped = None if fault.goes_on else scene.wait_until_empty(*reachable)
    return Times(told, stopped, *((None, None) if fault.gone else scene.wait_for_end()))
