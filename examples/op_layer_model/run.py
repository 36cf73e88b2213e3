"""A GLM in which an accelerated library replaces an operation, a layer or the model, labelled at two levels.

    aclcmp --exec "python examples/op_layer_model/run.py --granularity model" --ranks 4 --low-level

Every rank runs the golden model (all heads) and its part of the library (its heads, all-reduces over gloo), turn by
turn of a dialogue. Everything runs on the CPU. The script also runs under torchrun, or alone; labels are off then.
"""

import argparse
import os
from collections.abc import Sequence
from datetime import timedelta

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}  # read when torch is imported
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import torch
import torch.distributed as dist
from golden import KEY_HEADS, VOCABULARY, random_golden
from replaced import GRANULARITIES, Setting
from standin import FAULTS

from aclcmp import set_task_id

TOKENS = (24, 12)
"""Of the first turn, and of each later one."""


def parse_arguments(argv: Sequence[str] | None, ranks: int) -> argparse.Namespace:
    """Read the options; what `ranks` ranks cannot do ends the process with exit code 2."""
    parser = argparse.ArgumentParser(
        description="A GLM in which a library replaces an operation, a layer or the model."
    )
    parser.add_argument("--granularity", choices=GRANULARITIES, default="model", help="what the library replaces")
    parser.add_argument("--level", choices=("high", "low", "both"), default="both", help="what is labelled")
    parser.add_argument("--generation", choices=("A", "B", "C", "D"), help="of the library's dump folders")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both sides")
    parser.add_argument("--layers", type=int, default=4, help="of the model")
    parser.add_argument("--hidden", type=int, default=128, help="hidden size of the model")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights and prompts")
    parser.add_argument("--turns", type=int, default=2, help="turns of the dialogue; each is a task")
    parser.add_argument("--fault", choices=FAULTS, help="fault to plant in the softmax kernel of one layer")
    parser.add_argument("--layer", type=int, default=2, help="layer that gets the fault")
    parser.add_argument("--rank", type=int, help="rank that gets the fault; all ranks without it")
    arguments = parser.parse_args(argv)
    if min(arguments.layers, arguments.hidden, arguments.turns) < 1:
        parser.error("--layers, --hidden and --turns must be at least 1")
    if KEY_HEADS % ranks or 3 * arguments.hidden % ranks:
        parser.error(f"{ranks} ranks cannot share {KEY_HEADS} key heads and an MLP of {3 * arguments.hidden} equally")
    if arguments.fault is not None:
        if not 0 <= arguments.layer < arguments.layers:
            parser.error(f"--layer {arguments.layer}: the layers are 0 to {arguments.layers - 1}")
        if arguments.rank is not None and not 0 <= arguments.rank < ranks:
            parser.error(f"--rank {arguments.rank}: the ranks are 0 to {ranks - 1}")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run this rank."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    arguments = parse_arguments(argv, ranks)
    if arguments.generation is not None:
        os.environ["STANDIN_GENERATION"] = arguments.generation
    torch.set_num_threads(1)  # the ranks share this machine's cores
    if ranks > 1:
        dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    try:
        with torch.no_grad():
            talk(arguments, rank, ranks)
    finally:
        if ranks > 1:
            dist.destroy_process_group()


def talk(arguments: argparse.Namespace, rank: int, ranks: int) -> None:
    """Build both sides and let them read the dialogue; a turn reads all turns before it, too."""
    dtype = getattr(torch, arguments.dtype)
    golden = random_golden(layers=arguments.layers, hidden=arguments.hidden, seed=arguments.seed, dtype=dtype)
    setting = Setting(
        rank=rank,
        ranks=ranks,
        device=int(os.environ.get("LOCAL_RANK", "0")),
        high=arguments.level != "low",
        low=arguments.level != "high",
        fault=arguments.fault if arguments.rank in (None, rank) else None,
        faulty_layer=arguments.layer,
    )
    run_both = GRANULARITIES[arguments.granularity](golden, setting)
    generator = torch.Generator().manual_seed(arguments.seed)
    history = torch.empty(1, 0, dtype=torch.long)
    for turn in range(arguments.turns):
        set_task_id()
        query = torch.randint(VOCABULARY, (1, TOKENS[min(turn, 1)]), generator=generator)
        history = torch.cat((history, query), dim=1)
        run_both(history)
        if rank == 0:
            print(f"turn {turn}: {history.shape[1]} tokens", flush=True)


if __name__ == "__main__":
    main()
