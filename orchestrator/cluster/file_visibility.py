"""Ask all nodes which files of a run directory they see, by files that each node leaves in it for a moment."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress

from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.cluster.file_locations import NodeView
from aclcmp.orchestrator.run.directory import RunDir


def probe_visibility(run: RunDir, cluster: Cluster) -> dict[str, NodeView | str]:
    """Ask every node what it sees of a run; return the views, or reasons why there is none, by node id."""
    nodes = [node.node_id for node in cluster.nodes]
    if len(nodes) == 1:
        there, ranks, _ = check_visibility(run, ())
        return {nodes[0]: NodeView(there, ranks, frozenset(nodes))}
    nonces = cluster.ask(write_nonce, run).items()
    owners = {answer[0]: node for node, answer in nonces if not isinstance(answer, str) and answer}
    try:
        answers = cluster.ask(check_visibility, run, tuple(owners))
    finally:
        cluster.ask(remove_nonces, run, tuple(owners))
    views: dict[str, NodeView | str] = {}
    for node, answer in answers.items():
        if isinstance(answer, str):
            views[node] = answer
        else:
            there, ranks, visible = answer
            views[node] = NodeView(there, ranks, frozenset({node, *(owners[token] for token in visible)}))
    return views


def write_nonce(run: RunDir) -> tuple[str, ...]:
    """Write a file with a new token into the run directory on this node; return the token, () if that fails."""
    token = secrets.token_hex(8)
    try:
        with run.nonce(token).open("x", encoding="ascii") as file:
            file.write(token)
    except OSError:  # no such folder, or not writable
        return ()
    return (token,)


def check_visibility(run: RunDir, tokens: Sequence[str]) -> tuple[bool, frozenset[int], tuple[str, ...]]:
    """Return whether the run directory is on this node, the ranks whose shards it holds, and the visible tokens.

    Files are opened by name: a network folder's listing may be out of date, but not a name that is opened for the first
    time.
    """
    visible = []
    for token in tokens:
        with suppress(OSError):
            if run.nonce(token).read_text(encoding="ascii") == token:
                visible.append(token)
    ranks = frozenset(files.rank for files in shards_in(run.shards))
    return run.root.is_dir(), ranks, tuple(visible)


def remove_nonces(run: RunDir, tokens: Sequence[str]) -> bool:
    """Remove the files with these tokens."""
    for token in tokens:
        with suppress(OSError):
            run.nonce(token).unlink(missing_ok=True)
    return True
