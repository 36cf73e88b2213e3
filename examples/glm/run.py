"""A tensor-parallel GLM beside the plain one, labelled layer by layer.

    aclcmp --exec "python examples/glm/run.py" --ranks 8

Every rank runs the golden model (plain, eager, all weights) and its part of the actual one (transformers' tensor
parallelism over gloo, fused attention), turn by turn of a dialogue. `--fault` plants a fault in the actual model.
Everything runs on the CPU. The script also runs under torchrun, or alone as one rank; labels are off then.
"""

import argparse
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}  # read when torch is imported
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}

import torch
import torch.distributed as dist
from dialogue import Dialogue, random_dialogue, spoken_dialogue
from faults import FAULTS
from labels import label_glm
from model import checkpoint_model, random_model, tensor_parallel
from transformers import GlmForCausalLM

from aclcmp import set_task_id


def parse_arguments(argv: Sequence[str] | None, ranks: int) -> argparse.Namespace:
    """Read the options; what `ranks` ranks cannot do ends the process with exit code 2."""
    parser = argparse.ArgumentParser(description="A tensor-parallel GLM beside the plain one, labelled layer by layer.")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of both models")
    parser.add_argument("--layers", type=int, default=4, help="of the random model")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size of the random model")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights and prompts")
    parser.add_argument("--model", type=Path, help="folder of a GLM checkpoint to load instead of random weights")
    parser.add_argument("--turns", type=int, default=2, help="turns of the dialogue; each is a task")
    parser.add_argument("--fault", choices=FAULTS, help="fault to plant in the actual model")
    parser.add_argument("--layer", type=int, default=2, help="layer that gets the fault")
    parser.add_argument("--rank", type=int, default=0, help="rank that gets the fault, where it is one rank's")
    parser.add_argument("--list-faults", action="store_true", help="say what each fault simulates, and exit")
    arguments = parser.parse_args(argv)
    if min(arguments.layers, arguments.hidden, arguments.turns) < 1:
        parser.error("--layers, --hidden and --turns must be at least 1")
    if arguments.model is not None and not (arguments.model / "config.json").is_file():
        parser.error(f"--model {arguments.model}: no config.json there")
    if arguments.fault is not None:
        if not 0 <= arguments.rank < ranks:
            parser.error(f"--rank {arguments.rank}: the ranks are 0 to {ranks - 1}")
        if arguments.layer < 0 or (arguments.model is None and arguments.layer >= arguments.layers):
            parser.error(f"--layer {arguments.layer}: the layers are 0 to {arguments.layers - 1}")
        if ranks < FAULTS[arguments.fault].min_ranks:
            parser.error(f"--fault {arguments.fault} needs at least {FAULTS[arguments.fault].min_ranks} ranks")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run this rank."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    arguments = parse_arguments(argv, ranks)
    if arguments.list_faults:
        for name, fault in FAULTS.items():
            print(f"{name:<16}  {fault.first_label(arguments.layer):<32}  {fault.simulates}")
        return
    torch.set_num_threads(1)  # the ranks share this machine's cores
    if ranks > 1:
        dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    try:
        with torch.no_grad():
            golden, actual = build(arguments, rank, ranks)
            talk(golden, actual, dialogue(arguments, golden), aloud=rank == 0)
    finally:
        if ranks > 1:
            dist.destroy_process_group()


def build(arguments: argparse.Namespace, rank: int, ranks: int) -> tuple[GlmForCausalLM, GlmForCausalLM]:
    """Return both models, labelled, the actual one with its fault."""
    dtype = getattr(torch, arguments.dtype)
    if arguments.model is None:
        golden = random_model(layers=arguments.layers, hidden=arguments.hidden, seed=arguments.seed, dtype=dtype)
    else:
        golden = checkpoint_model(arguments.model, dtype=dtype)
    actual = tensor_parallel(golden, ranks=ranks)
    label_glm(golden, "golden")
    label_glm(actual, "actual")
    if arguments.fault is not None:
        fault = FAULTS[arguments.fault]
        if fault.planted_on_all or rank == arguments.rank:
            fault.plant(actual, arguments.layer)
    return golden, actual


def dialogue(arguments: argparse.Namespace, golden: GlmForCausalLM) -> Dialogue:
    """Return the prompts: questions where the checkpoint comes with a tokenizer, random token ids otherwise."""
    if arguments.model is not None and (arguments.model / "tokenizer_config.json").is_file():
        return spoken_dialogue(arguments.model, turns=arguments.turns)
    return random_dialogue(turns=arguments.turns, vocabulary=golden.config.vocab_size, seed=arguments.seed)


def talk(golden: GlmForCausalLM, actual: GlmForCausalLM, dialogue: Dialogue, *, aloud: bool) -> None:
    """Let both models read the same history in every turn: a wrong token must not change what the next turn reads."""
    history: list[int] = []
    for turn, prompt in enumerate(dialogue.prompts):
        set_task_id()
        history += prompt
        ids = torch.tensor([history])
        golden_next, actual_next = next_token(golden, ids), next_token(actual, ids)
        if aloud:
            says = f"golden says {dialogue.spell(golden_next)}, actual says {dialogue.spell(actual_next)}"
            print(f"turn {turn}: after {len(history)} tokens {says}", flush=True)
        history.append(golden_next)


def next_token(model: GlmForCausalLM, ids: torch.Tensor) -> int:
    """Return the likeliest token after `ids` (1, tokens). No cache: labels of each turn cover the whole history."""
    return int(model(ids, use_cache=False).logits[0, -1].argmax())


if __name__ == "__main__":
    main()
