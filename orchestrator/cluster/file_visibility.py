"""What each node sees of a run directory: asked on all of them, by files that they leave in it for a moment."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress

from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.cluster.file_locations import NodeView
from aclcmp.orchestrator.run.directory import RunDir


def probe_visibility(run: RunDir, cluster: Cluster) -> dict[str, NodeView | str]:
    """Ask every node what it sees of a run; return that by node id, or why a node did not say."""
    nodes = [node.node_id for node in cluster.nodes]
    if len(nodes) == 1:
        there, ranks, _ = check_visibility(run, ())
        return {nodes[0]: NodeView(there, ranks, frozenset(nodes))}
    left = cluster.ask(write_nonce, run).items()
    owners = {answer[0]: node for node, answer in left if not isinstance(answer, str) and answer}
    try:
        answers = cluster.ask(check_visibility, run, tuple(owners))
    finally:
        cluster.ask(remove_nonces, run, tuple(owners))
    found: dict[str, NodeView | str] = {}
    for node, answer in answers.items():
        if isinstance(answer, str):
            found[node] = answer
        else:
            there, ranks, seen = answer
            found[node] = NodeView(there, ranks, frozenset({node, *(owners[token] for token in seen)}))
    return found


def write_nonce(run: RunDir) -> tuple[str, ...]:
    """Leave a file in a run directory of this node; return its token, nothing where that cannot be."""
    token = secrets.token_hex(8)
    try:
        with run.nonce(token).open("x", encoding="ascii") as file:
            file.write(token)
    except OSError:  # no such folder, or not to be written
        return ()
    return (token,)


def check_visibility(run: RunDir, tokens: Sequence[str]) -> tuple[bool, frozenset[int], tuple[str, ...]]:
    """Tell whether the run directory is on this node, the ranks whose shards lie in it, and which tokens it sees.

    Files are opened by their names: the listing of a network folder may be old, a name that was never asked for is not.
    """
    seen = []
    for token in tokens:
        with suppress(OSError):
            if run.nonce(token).read_text(encoding="ascii") == token:
                seen.append(token)
    ranks = frozenset(files.rank for files in shards_in(run.shards))
    return run.root.is_dir(), ranks, tuple(seen)


def remove_nonces(run: RunDir, tokens: Sequence[str]) -> bool:
    """Remove what nodes left."""
    for token in tokens:
        with suppress(OSError):
            run.nonce(token).unlink(missing_ok=True)
    return True
