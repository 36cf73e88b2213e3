"""fetched.json in a run directory: the ranks whose shards were fetched, even if they recorded nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress

from aclcmp.labeling.atomic_file import replace_atomically
from aclcmp.orchestrator.run.directory import RunDir

_SCHEMA = 1


def fetched_ranks(run: RunDir) -> frozenset[int]:
    """Return the ranks of other hosts whose shards are all here; none where the file is absent or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        content = json.loads(run.fetched.read_bytes())
        if content["schema"] == _SCHEMA:
            return frozenset(rank for rank in content["ranks"] if isinstance(rank, int))
    return frozenset()


def add_fetched_ranks(run: RunDir, ranks: Iterable[int]) -> None:
    """Record that the shards of these ranks are here. Raises OSError."""
    content = {"schema": _SCHEMA, "ranks": sorted(fetched_ranks(run) | set(ranks))}
    with replace_atomically(run.fetched) as part:
        part.write_text(json.dumps(content) + "\n", encoding="utf-8")
