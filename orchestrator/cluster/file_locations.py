"""Which node holds the files of a rank, which other nodes see the same files, and which ranks are out of reach. Pure.

Nodes see the same files where they share a file system. That is found out, not assumed: every node that has the run
directory leaves a file of its own in it, and looks which of the others' it sees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.core.text import of_ranks

RanOn = tuple[str, str, str]
"""Where a rank ran: node id, ip, host."""


@dataclass(frozen=True, slots=True)
class FileLocations:
    """Where the files of ranks are read."""

    default: str
    """Node of the ranks that `homes` does not name."""
    homes: Mapping[int, str] = field(default_factory=dict)
    """The node that holds a rank's files."""
    alike: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """All nodes that see the same files as a node, itself among them; left out: it alone."""

    def home(self, rank: int) -> str:
        """The node that holds a rank's files, the one where it ran if that can be asked."""
        return self.homes.get(rank, self.default)

    def sees(self, node: str, rank: int) -> bool:
        """Whether a node can read a rank's files as its own."""
        home = self.homes.get(rank, self.default)
        return node == home or (bool(self.alike) and node in self.alike.get(home, ()))

    def readers(self, rank: int) -> frozenset[str]:
        """All nodes that can read a rank's files as their own."""
        home = self.home(rank)
        return self.alike.get(home, frozenset((home,)))

    def without(self, node: str) -> FileLocations:
        """The same after a node is lost: its ranks are at home on others that see the same files, if there are any."""
        if not (others := sorted(self.alike.get(node, frozenset()) - {node})):
            return self
        homes = {rank: others[rank % len(others)] if home == node else home for rank, home in self.homes.items()}
        alike = {each: group - {node} for each, group in self.alike.items() if each != node}
        return FileLocations(self.default, homes, alike)


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a node sees of a run directory."""

    there: bool
    """Whether it has that folder."""
    ranks: frozenset[int] = frozenset()
    """Those whose shards lie there."""
    nodes: frozenset[str] = frozenset()
    """The nodes whose files it sees, its own among them."""


@dataclass(frozen=True, slots=True)
class LocatedShards:
    """Where the shards of a run are, as its nodes say."""

    places: FileLocations
    readers: Mapping[str, frozenset[int]]
    """By node the ranks whose shards it shall index: each rank once."""
    lost: Mapping[int, str]
    """Ranks whose shards nobody can read now, and in words why."""


def locate_shards(ran: Mapping[int, RanOn], nodes: Sequence[Node], seen: Mapping[str, NodeView | str]) -> LocatedShards:
    """Find the node for each rank of a run.

    `nodes` are alive, the driver's first; `seen` is what each of them sees, or why it did not say. A rank's files are
    read where it ran, or where that cannot be asked from a copy that another node has. A rank of which there is no
    shard where it ran has recorded nothing: it is not lost.
    """
    looked = {node.node_id: each for node in nodes if isinstance(each := seen.get(node.node_id), NodeView)}
    groups = {home: frozenset(node for node, each in looked.items() if home in each.nodes) for home in looked}
    homes: dict[int, str] = {}
    lost: dict[int, str] = {}
    readers: dict[str, set[int]] = defaultdict(set)
    for rank in sorted({*ran, *(rank for each in looked.values() for rank in each.ranks)}):
        own = node_of(ran[rank], nodes) if rank in ran else None
        order = sorted(looked, key=lambda node: node != own)  # stable: the driver's before the others
        holder = next((node for node in order if rank in looked[node].ranks), None)
        if holder is not None:
            homes[rank] = holder
            readers[holder].add(rank)
        elif own is None:
            lost[rank] = f"its shards lie on {where(ran[rank])}, which has left the cluster"
        elif own not in looked:
            lost[rank] = f"its shards lie on {where(ran[rank])}, which cannot be asked: {seen.get(own, 'it is new')}"
        elif not looked[own].there:
            lost[rank] = f"its shards lay on {where(ran[rank])}, which has no such run directory now"
        else:
            homes[rank] = own
    alike = {home: group for home, group in groups.items() if len(group) > 1}
    by_node = {node: frozenset(ranks) for node, ranks in readers.items()}
    return LocatedShards(FileLocations(nodes[0].node_id, homes, alike), by_node, lost)


def node_of(place: RanOn, nodes: Iterable[Node]) -> str | None:
    """The current node where a rank ran: node ids change when a node comes back, so the same ip and host will do.

    The address of a local Ray is one of loopback, which tells no host from another.
    """
    node_id, ip, host = place
    known = list(nodes)
    same = [node.node_id for node in known if node.node_id == node_id]
    alike = [node.node_id for node in known if node.host == host and (node.ip == ip or ip.startswith("127."))]
    return next(iter([*same, *alike]), None)


def where(place: RanOn) -> str:
    """A host in words."""
    _, ip, host = place
    return f"host {host} ({ip})"


def unreachable_sentences(lost: Mapping[int, str]) -> list[str]:
    """One sentence for all ranks that are lost for the same reason."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for rank, reason in sorted(lost.items()):
        by_reason[reason].append(rank)
    several = {"its shards": "their shards"}
    told = []
    for reason, ranks in by_reason.items():
        words = reason
        for one, many in several.items() if len(ranks) > 1 else ():
            words = words.replace(one, many, 1)
        told.append(f"{of_ranks(ranks)}: {words}")
    return told
