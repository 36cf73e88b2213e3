"""Indices of a run's shards on this host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.run.directory import RunDir


def read_indices(run: RunDir, ranks: frozenset[int] | None = None) -> tuple[list[ShardIndex], list[str]]:
    """Index the shards of a run that lie on this host, or those of some ranks; also say which could not be read.

    For labels that name a file of the accelerated library the file is looked for, on this host too.
    """
    # here and not above: actors that only compare read by offset, and save the 13 MiB of HDF5
    from aclcmp.labeling.shard.shard_files import shards_in
    from aclcmp.labeling.shard.shard_reader import read_shard
    from aclcmp.orchestrator.dumps.atb.find_dumps import FileLabel, find_dumps

    def with_dumps(index: ShardIndex) -> ShardIndex:
        wanted = [
            FileLabel(label.seq, label.task, label.tensor_path, label.time, label.call_site)
            for label in index.records
            if label.tensor_path
        ]
        if not wanted:
            return index
        roots = list(dict.fromkeys(run.dumps_now_at(Path(folder)) for folder in index.header.dump_folders))
        own = frozenset(filter(run.is_of_one_rank, roots))
        found = find_dumps(wanted, index.header.pid, roots, own=own, since=index.header.started)
        return replace(index, dumped=found)

    indices: list[ShardIndex] = []
    problems: list[str] = []
    for files in shards_in(run.shards):
        if ranks is not None and files.rank not in ranks:
            continue
        try:
            indices.append(with_dumps(read_shard(files)))
        except (AclcmpError, OSError) as error:
            problems.append(str(error))
    return indices, problems
