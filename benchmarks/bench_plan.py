"""Time and memory of planning 1,000 labels on 64 to 1,024 ranks, from synthetic indices.

    python benchmarks/bench_plan.py [LABELS]

A third of the labels is whole on both sides, a third sharded beside a whole golden side, a third sharded on both. Each
size runs in a process of its own. The indices arrive pickled rank by rank, as compare actors send them. Memory is the
process's peak, including the indices. Bounds: 256 ranks in 5 s and 500 MiB, and the same time for each label of a rank.
"""

import pickle
import resource
import subprocess
import sys
import time
from pathlib import Path

from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.plan.planner import plan_run

TOKENS, HIDDEN = 32, 8192


def index_of(rank: int, ranks: int, labels: int) -> bytes:
    """Return one rank's index as an actor sends it."""
    records = []
    for number in range(labels):
        layer, kind = divmod(number, 3)
        name = f"model.layers.{layer}.{('input_layernorm', 'self_attn.q_proj', 'mlp.act_fn')[kind]}"
        for side, sharded in (("pta", kind == 2), ("acl", kind > 0)):
            width = HIDDEN // ranks if sharded else HIDDEN
            seq = len(records)
            checksum = number * 2_654_435_761 + (rank + 1 if sharded else 0)
            facts = {"offset": 4096 * (seq + 1), "nbytes": TOKENS * width * 2, "checksum": checksum}
            shape, device = (TOKENS, width), "cpu" if side == "pta" else f"npu:{rank % 8}"
            records.append(
                LabelRecord(0, name, 0, side, seq, seq * 1e-3, "run.py:12", "bfloat16", shape, device, **facts)
            )
    header = ShardHeader("run", rank, ranks, rank % 8, 0, f"host{rank // 8}", 1, 0.0)
    return pickle.dumps(ShardIndex(ShardFiles(Path("/runs/run/shards"), rank, 0), header, tuple(records)))


def measure(ranks: int, labels: int) -> None:
    """Plan in this process and print the figures."""
    indices = [pickle.loads(index_of(rank, ranks, labels)) for rank in range(ranks)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, start_cpu = time.perf_counter(), time.process_time()
    plan = plan_run(indices, ranks)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(plan.pairs) == ranks * labels and not plan.gaps and not plan.questions
    each = 1e6 * cpu / (ranks * labels)
    print(
        f"{ranks:5,} ranks x {labels:,} labels: {seconds:6.2f} s ({cpu:5.2f} s of CPU, "
        f"{each:.1f} us for each label of a rank); "
        f"peak {peak / 1024:5,.0f} MiB, {before / 1024:,.0f} of it the indices",
        flush=True,
    )


def main() -> None:
    """Print the figures of each number of ranks."""
    if len(sys.argv) > 2:
        measure(int(sys.argv[1]), int(sys.argv[2]))
        return
    labels = sys.argv[1] if len(sys.argv) > 1 else "1000"
    for ranks in (64, 128, 256, 512, 1024):
        subprocess.run([sys.executable, __file__, str(ranks), labels], check=True)


if __name__ == "__main__":
    main()
