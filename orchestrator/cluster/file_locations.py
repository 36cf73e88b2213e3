"""Find which node holds the files of a rank, which nodes share them, and which ranks are out of reach. Pure.

Nodes that share a file system see the same files. That is tested, not assumed: every node that has the run directory
leaves a file of its own in it, and checks which files of other nodes it sees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.core.text import of_ranks

RanOn = tuple[str, str, str]
"""Node id, ip and host of the node where a rank ran."""


@dataclass(frozen=True, slots=True)
class FileLocations:
    """Nodes on which the files of each rank can be read."""

    default: str
    """Node of the ranks that are not in `homes`."""
    homes: Mapping[int, str] = field(default_factory=dict)
    """Node that holds a rank's files, by rank."""
    alike: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """For each node, all nodes that see the same files, itself among them; without nodes that share no files."""

    def home(self, rank: int) -> str:
        """Return the node that holds a rank's files: the one where the rank ran, if that can be asked."""
        return self.homes.get(rank, self.default)

    def sees(self, node: str, rank: int) -> bool:
        """Tell whether a node can read a rank's files as its own."""
        home = self.homes.get(rank, self.default)
        return node == home or (bool(self.alike) and node in self.alike.get(home, ()))

    def readers(self, rank: int) -> frozenset[str]:
        """Return all nodes that can read a rank's files as their own."""
        home = self.home(rank)
        return self.alike.get(home, frozenset((home,)))

    def without(self, node: str) -> FileLocations:
        """Return the locations after a node is lost: its ranks move to nodes that see the same files, if any."""
        if not (others := sorted(self.alike.get(node, frozenset()) - {node})):
            return self
        homes = {rank: others[rank % len(others)] if home == node else home for rank, home in self.homes.items()}
        alike = {each: group - {node} for each, group in self.alike.items() if each != node}
        return FileLocations(self.default, homes, alike)


@dataclass(frozen=True, slots=True)
class NodeView:
    """View that a node has of a run directory."""

    there: bool
    """True if the folder exists there."""
    ranks: frozenset[int] = frozenset()
    """Ranks whose shards lie there."""
    nodes: frozenset[str] = frozenset()
    """Nodes whose files it sees, itself among them."""


@dataclass(frozen=True, slots=True)
class LocatedShards:
    """Locations of a run's shards, as its nodes report them."""

    places: FileLocations
    readers: Mapping[str, frozenset[int]]
    """Ranks whose shards each node shall index, by node: each rank once."""
    lost: Mapping[int, str]
    """Ranks whose shards no node can read now, with the reason in words."""


def locate_shards(
    ran: Mapping[int, RanOn], nodes: Sequence[Node], views: Mapping[str, NodeView | str]
) -> LocatedShards:
    """Find the node for each rank of a run.

    `nodes` are alive, the driver's first; `views` holds what each of them sees, or why it gave no answer. A rank's
    files are read where the rank ran, or, if that node cannot be asked, from a copy on another node. A rank without a
    shard where it ran has recorded nothing: it is not lost.
    """
    answered = {node.node_id: each for node in nodes if isinstance(each := views.get(node.node_id), NodeView)}
    groups = {home: frozenset(node for node, each in answered.items() if home in each.nodes) for home in answered}
    homes: dict[int, str] = {}
    lost: dict[int, str] = {}
    readers: dict[str, set[int]] = defaultdict(set)
    for rank in sorted({*ran, *(rank for each in answered.values() for rank in each.ranks)}):
        own_node = node_of(ran[rank], nodes) if rank in ran else None
        order = sorted(answered, key=lambda node: node != own_node)  # stable: the driver's before the others
        holder = next((node for node in order if rank in answered[node].ranks), None)
        if holder is not None:
            homes[rank] = holder
            readers[holder].add(rank)
        elif own_node is None:
            lost[rank] = f"its shards lie on {where(ran[rank])}, which has left the cluster"
        elif own_node not in answered:
            lost[rank] = (
                f"its shards lie on {where(ran[rank])}, which cannot be asked: {views.get(own_node, 'it is new')}"
            )
        elif not answered[own_node].there:
            lost[rank] = f"its shards lay on {where(ran[rank])}, which has no such run directory now"
        else:
            homes[rank] = own_node
    alike = {home: group for home, group in groups.items() if len(group) > 1}
    by_node = {node: frozenset(ranks) for node, ranks in readers.items()}
    return LocatedShards(FileLocations(nodes[0].node_id, homes, alike), by_node, lost)


def node_of(place: RanOn, nodes: Iterable[Node]) -> str | None:
    """Return the current id of the node where a rank ran; None if it is gone.

    A node that comes back has another id, so the same ip and host are enough. A local Ray's address is a loopback
    address, which is the same on every host.
    """
    node_id, ip, host = place
    known = list(nodes)
    same = [node.node_id for node in known if node.node_id == node_id]
    alike = [node.node_id for node in known if node.host == host and (node.ip == ip or ip.startswith("127."))]
    return next(iter([*same, *alike]), None)


def where(place: RanOn) -> str:
    """Return a host in words."""
    _, ip, host = place
    return f"host {host} ({ip})"


def unreachable_sentences(lost: Mapping[int, str]) -> list[str]:
    """Return one sentence for all ranks that are lost for the same reason."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for rank, reason in sorted(lost.items()):
        by_reason[reason].append(rank)
    several = {"its shards": "their shards"}
    sentences = []
    for reason, ranks in by_reason.items():
        words = reason
        for one, many in several.items() if len(ranks) > 1 else ():
            words = words.replace(one, many, 1)
        sentences.append(f"{of_ranks(ranks)}: {words}")
    return sentences
