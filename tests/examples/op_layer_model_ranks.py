"""Runs the example of a replaced operation, layer and model on several ranks; finds what its library dumped."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.cluster.ports import free_port
from tests.examples.glm_ranks import rank_environment
from tests.processes import PATIENCE

EXAMPLE = Path(__file__).parents[2] / "examples" / "op_layer_model"
TURNS = 2
HEADER = ("$Version", "$Object.Count", "$Object.Length", "format", "dtype", "dims", "$Object.data", "$End")


@dataclass(frozen=True, slots=True)
class Round:
    """One run of the example: its options, and the generation of dump folders. Round n is tasks 2n and 2n+1."""

    options: str
    generation: str

    def dumps(self, folder: Path, number: int, rank: int) -> Path:
        """Return the output folder of a rank's library in the round of that number."""
        return folder / "dumps" / str(number) / f"rank{rank}"


@dataclass(frozen=True, slots=True)
class Ranks:
    """Traces of the ranks: their shards, and the process ids after which their dump folders are named."""

    folder: Path
    shards: tuple[ShardIndex, ...]
    pids: tuple[int, ...]


def run_rounds(folder: Path, ranks: int, rounds: Sequence[Round]) -> Ranks:
    """Run all rounds in one process for each rank: importing torch costs far more than a run."""
    shards = folder / "shards"
    shards.mkdir()
    ports = [free_port() for _ in rounds]
    with ExitStack() as stack:
        processes = []
        for rank in range(ranks):
            plan = [
                {**asdict(one), "port": port, "dumps": str(one.dumps(folder, number, rank))}
                for number, (one, port) in enumerate(zip(rounds, ports, strict=True))
            ]
            command = [sys.executable, "-W", "error", str(Path(__file__).with_name("op_layer_model_worker.py"))]
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, json.dumps(plan)],
                    env={**rank_environment(shards, rank, ranks, 0), "PYTHONPATH": str(EXAMPLE)},
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
    pids = tuple(process.pid for process in processes)
    return Ranks(folder, tuple(read_shard(ShardFiles(shards, rank)) for rank in range(ranks)), pids)


def execution_folder(out: Path, generation: str, *, pid: int, device: int, execution: int, task: int) -> Path:
    """Return the folder of an execution's files, as the original tools document it."""
    return {
        "A": out / "tensors" / str(pid) / f"{pid}_{task}",
        "B": out / "tensors" / f"{pid}_{pid}" / str(execution),
        "C": out / "msit_dump" / "tensors" / f"{device}_{pid}" / str(execution),
        "D": out / "atb_dump_data" / "data" / f"{device}_{pid}" / str(execution),
    }[generation]


def find(folder: Path, tensor_path: str) -> Path:
    """Return the only file below `folder` that a label means, whatever its case."""
    found = [path for path in folder.rglob("*.bin") if str(path.relative_to(folder)).lower() == tensor_path.lower()]
    assert len(found) == 1, f"{tensor_path}: {found} in {folder}"
    return found[0]


def read_strictly(path: Path) -> npt.NDArray[np.float32]:
    """Read a dumped float32 or bfloat16 tensor, refusing whatever is not exactly as ATB writes it."""
    data = path.read_bytes()
    *lines, rest = data.split(b"\n", len(HEADER))
    names, values = zip(*(line.decode("ascii").split("=") for line in lines), strict=True)
    fields = dict(zip(names, values, strict=True))
    assert names == HEADER
    dims = [int(dim) for dim in fields["dims"].split(",")]
    wide = {"0": 4, "27": 2}[fields["dtype"]]
    size = int(np.prod(dims)) * wide
    assert (fields["$Version"], fields["$Object.Count"], fields["format"], fields["$End"]) == ("1.0", "1", "2", "1")
    assert (fields["$Object.Length"], fields["$Object.data"], len(rest)) == (str(size), f"0,{size}", size)
    if wide == 4:
        return np.frombuffer(rest, np.float32).reshape(dims)
    return (np.frombuffer(rest, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(dims)
