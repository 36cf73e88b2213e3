"""The Ray actor that hosts the commands of one node: it starts them, and reports their lines and ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.orchestrator.cluster.ports import free_port
from aclcmp.orchestrator.launch.dump_setup import DumpSetup
from aclcmp.orchestrator.launch.guarded_command import Batch, GuardedCommand, Start
from aclcmp.orchestrator.launch.placement import Grant

BEAT_SECONDS = 3.0
"""Longest time until a call of `next` is answered: no answer for longer means that the host is in trouble."""
BATCH_SECONDS = 0.05  # lines are gathered this long; one call per line would cap the stream at some 15,000 lines/s


class RankHost:
    """All commands on one node. Call in order: describe, start, then next until all are done; stop at any time.

    One actor for all of them: each further one would be one more Python that imports Ray, 0.4 s of a core and 43 MiB.
    Needs `max_concurrency` >= 3: `next` waits inside the actor while `stop` comes in.
    """

    def __init__(self, ranks: int) -> None:
        """Take the number of ranks that it will host."""
        self._ranks = ranks
        self._changed = threading.Condition()
        self._commands: list[GuardedCommand] = []

    def describe(self, resource: str | None, shards: Path) -> Grant:
        """Return the node and devices of this actor; `resource` is Ray's name of the device ("NPU", "GPU").

        Raises FileExistsError when the folder `shards` on this host already holds some.
        """
        import ray

        check_vacant(shards)
        context = ray.get_runtime_context()
        devices = context.get_accelerator_ids().get(resource, []) if resource else []
        ip = ray.util.get_node_ip_address()
        owners = (name for name, each in psutil.net_if_addrs().items() if ip in {address.address for address in each})
        return Grant(self._ranks, context.get_node_id(), ip, socket.gethostname(), tuple(devices), next(owners, None))

    def free_port(self) -> int:
        """Return a free TCP port of this host, for the ranks' rendezvous."""
        return free_port()

    def start(self, orders: Sequence[Start]) -> list[DumpSetup | None]:
        """Start the commands; return how the dumps of each were prepared, None without dumps.

        Raises FileNotFoundError when the working directory is not there on this host.
        """
        for order in orders:
            self._commands.append(GuardedCommand(order, self._changed))
        return [command.setup for command in self._commands]

    def next(self) -> dict[int, Batch]:
        """Wait for news, at most BEAT_SECONDS; return it by the position of the command in `start`.

        A command's batch that is `done` is its last one.
        """
        with self._changed:
            self._changed.wait_for(lambda: any(command.has_news for command in self._commands), BEAT_SECONDS)
        if not all(command.is_done for command in self._commands):
            time.sleep(BATCH_SECONDS)
        with self._changed:
            return {position: each.take() for position, each in enumerate(self._commands) if each.has_news}

    def stop(self) -> None:
        """End the commands and all their processes: SIGTERM, two seconds, SIGKILL. Returns at once."""
        for command in self._commands:
            command.stop()


def check_vacant(shards: Path) -> None:
    """Raise FileExistsError when a folder holds shards.

    The driver may have removed a run that other hosts still have: its rest would be compared with the new one.
    """
    if left := shards_in(shards):
        raise FileExistsError(
            f"{shards} on host {socket.gethostname()} holds shards of an earlier run ({left[0].stem}): "
            f"remove {shards.parent} there, or choose another --output"
        )
