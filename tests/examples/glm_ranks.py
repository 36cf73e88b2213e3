"""Runs the GLM example on several ranks and measures, with plain numpy, what its labels recorded."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from aclcmp.orchestrator.cluster.ports import free_port
from tests.processes import PATIENCE

GLM = Path(__file__).parents[2] / "examples" / "glm"
TURNS = 2


@dataclass(frozen=True, slots=True)
class Error:
    """Error of one label on one rank: relative L2 of the whole tensor and of the worst row."""

    data_id: str
    rank: int
    sliced: bool
    whole: float
    worst_row: float
    nonfinite: bool

    @property
    def largest(self) -> float:
        return float("inf") if self.nonfinite else max(self.whole, self.worst_row)


def rank_environment(folder: Path, rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return torchrun's variables and aclcmp's own, with the example's modules importable."""
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACLCMP_RUN_ID": "20260101-000000",
        "ACLCMP_SHARD_DIR": str(folder),
        "ACLCMP_STRICT": "1",
        "PYTHONPATH": str(GLM),
    }


def run_rounds(folder: Path, ranks: int, rounds: Sequence[Sequence[str]]) -> list[ShardIndex]:
    """Run the example once for each list of options; return the ranks' shards. Round n is tasks 2n and 2n+1."""
    plan = json.dumps([(free_port(), options) for options in rounds])
    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("glm_worker.py")), plan]
    with ExitStack() as stack:
        processes = []
        for rank in range(ranks):
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    env=rank_environment(folder, rank, ranks, 0),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            stack.callback(process.kill)  # a rank that waits for one that failed
            processes.append(process)
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(outputs)
    assert not any(outputs[1:]), "only rank 0 speaks, and nothing warns"
    return [read_shard(ShardFiles(folder, rank)) for rank in range(ranks)]


def errors_by_label(shards: Sequence[ShardIndex], round_number: int) -> Iterator[list[Error]]:
    """Yield, in golden order, each label of a round as its ranks' errors."""
    tasks = range(TURNS * round_number, TURNS * (round_number + 1))
    for golden in (record for record in shards[0].records if record.side == "pta" and record.task in tasks):
        yield [_error(shard, golden, rank, len(shards)) for rank, shard in enumerate(shards)]


def _error(shard: ShardIndex, wanted: LabelRecord, rank: int, ranks: int) -> Error:
    tensors = {}
    for record in shard.records:
        if (record.task, record.data_id) == (wanted.task, wanted.data_id):
            assert record.occurrence == 0
            values = read_label(shard, record)
            tensors[record.side] = _bfloat16(values) if record.dtype == "bfloat16" else values
    golden, actual = tensors["pta"], tensors["acl"]
    sharded = [dim for dim in range(golden.ndim) if golden.shape[dim] != actual.shape[dim]]
    for dim in sharded:
        golden = np.array_split(golden, ranks, axis=dim)[rank]
    assert golden.shape == actual.shape
    golden, actual = golden.astype(np.float64), actual.astype(np.float64)
    nonfinite = not np.array_equal(np.isfinite(golden), np.isfinite(actual))
    norms, offs = np.linalg.norm(golden, axis=-1), np.linalg.norm(actual - golden, axis=-1)
    whole = float(np.linalg.norm(offs) / np.linalg.norm(norms))
    return Error(wanted.data_id, rank, bool(sharded), whole, float(np.max(offs / norms)), nonfinite)


def _bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)
