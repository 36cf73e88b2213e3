"""False alarms where a trained model runs in another, legitimate way: long and short prompts, a cache, batches.

    python benchmarks/real_clean.py [--models smollm2,minilm,gemma3] [--show]

Golden is transformers' own code with eager attention, one prompt in one forward. Beside it, in four pairs of types:
sdpa and three TP-like kernels on prompts of 5 to 1,500 tokens (text, and random ids, which no model was trained for), a
prompt read in two pieces and then token by token with a key-value cache, a batch of two prompts with padding on the
left or the right beside the same batch with sdpa and beside the prompt alone, and MLPs that `torch.compile` compiled.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from hints import Stored, compare_run
from planting import Recorded
from real_faults import Labels, record
from real_weights import DTYPES, TOO_NARROW
from torch import Tensor, nn
from trained import MODELS, TEXTS, TUNING_TEXTS, Trained

from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.core.verdicts import Origin, Status
from aclcmp.orchestrator.errors import ExitCode

PAIRS = (("bf16", "bf16"), ("fp16", "fp16"), ("fp32", "bf16"), ("fp32", "fp32"))
KERNELS = ("sdpa", "halves", "summands", "sdpa+halves+norm")
LONG = 1500
STEPS = 6
"""Tokens that are read one by one after the two pieces."""
Inputs = dict[str, Tensor]
Sides = tuple[str, Labels, Labels]


class Ways:
    """One model in one pair of types: golden and actual of every scene."""

    def __init__(self, trained: Trained, golden: Any, actual: Any) -> None:
        self.trained, self.golden, self.actual = trained, golden, actual

    def all(self) -> Iterator[Sides]:
        """Yield each scene: its kind, the labels of golden, and those of actual."""
        causal = "Bert" not in type(self.golden).__name__
        yield from self.kernels()
        yield from self.padded_batch("right")
        if causal:
            yield from self.padded_batch("left")
            yield from self.with_cache()
        yield self.compiled_mlps()

    def kernels(self) -> Iterator[Sides]:
        """Yield other kernels on prompts of many lengths."""
        short = [self.text(text) for text in ("Once upon a time", "import numpy as np\nx = np.zeros((3, 4))", TEXTS[0])]
        random = [self.random(seed, tokens) for seed, tokens in ((201, 5), (202, 12), (203, 24), (204, 96))]
        for kind, prompts in (("text", short), ("random ids", random)):
            for inputs in prompts:
                golden = record(self.golden, self.trained.roles, inputs)
                for kernel in KERNELS:
                    yield kind, golden, record(self.actual, self.trained.roles, inputs, kernel)
        if (long := self.text(" ".join(TEXTS + TUNING_TEXTS) * 12, LONG)) is not None:
            golden = record(self.golden, self.trained.roles, long)
            yield f"{LONG} tokens", golden, record(self.actual, self.trained.roles, long, "sdpa")

    def padded_batch(self, side: str) -> Iterator[Sides]:
        """Yield a batch of a short and a long prompt: with another kernel, and beside the short prompt alone."""
        inputs = self.text_batch(side)
        golden = record(self.golden, self.trained.roles, inputs)
        yield f"padded {side}", golden, record(self.actual, self.trained.roles, inputs, "sdpa")
        keep = inputs["attention_mask"][0].bool()
        alone = {name: each[:1, keep] for name, each in inputs.items() if name != "position_ids"}
        one = record(self.golden, self.trained.roles, alone)
        batch = record(self.actual, self.trained.roles, inputs)
        cut = {name: each[:1, keep] for name, each in batch.items() if each.shape[:2] == keep.expand(2, -1).shape}
        yield f"alone : batch padded {side}", {name: each for name, each in one.items() if name in cut}, cut

    def with_cache(self) -> Iterator[Sides]:
        """Yield a prompt that is read in two pieces and then token by token, beside one forward of the whole."""
        inputs = self.text(TEXTS[0])
        tokens = inputs["input_ids"].shape[1]
        whole = record(self.golden, self.trained.roles, inputs)
        cuts = [tokens // 2, *range(tokens - STEPS, tokens + 1)]
        yield "cache", whole, pieces(self.actual, inputs["input_ids"], cuts)

    def compiled_mlps(self) -> Sides:
        """Return a scene in which torch.compile has compiled the feed-forward parts."""
        inputs = self.text(TEXTS[0])
        golden = record(self.golden, self.trained.roles, inputs)
        torch._dynamo.reset()
        with ExitStack() as undo:
            for name, module in self.actual.named_modules():
                if name.rpartition(".")[2] in ("mlp", "intermediate", "act_fn") and list(module.children()):
                    module.forward = torch.compile(module.forward, dynamic=False)
                    undo.callback(delattr, module, "forward")
            actual = pieces(self.actual, inputs["input_ids"], [inputs["input_ids"].shape[1]])
        return "torch.compile", {name: each for name, each in golden.items() if name in actual}, actual

    def text(self, text: str, tokens: int = 0) -> Inputs:
        """Return the tokens of a text, at most `tokens` of them."""
        found = self.trained.tokens([text])
        limit = min(tokens or LONG, self.golden.config.max_position_embeddings)
        return {name: each[:, :limit] for name, each in found.items() if name != "token_type_ids"}

    def text_batch(self, side: str) -> Inputs:
        """Return a short and a long prompt as a batch, padded on one side."""
        one, other = (self.text(text)["input_ids"][0] for text in TEXTS[::-1])
        one, other = sorted((one[: len(one) // 2], other), key=len)
        gap = len(other) - len(one)
        pad, ones = torch.full((gap,), self.golden.config.pad_token_id or 0), torch.ones_like(one)
        parts = ((pad, one), (torch.zeros_like(pad), ones)) if side == "left" else ((one, pad), (ones, 0 * pad))
        ids, mask = (
            torch.stack([torch.cat(each), last]) for each, last in zip(parts, (other, 1 + 0 * other), strict=True)
        )
        found = {"input_ids": ids, "attention_mask": mask}
        return found | ({"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if side == "left" else {})

    def random(self, seed: int, tokens: int) -> Inputs:
        """Return random ids."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(self.golden.config.vocab_size, (1, tokens), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pieces(model: Any, ids: Tensor, cuts: list[int]) -> Labels:
    """Read a prompt up to each cut, with a cache if there are several; join the outputs of modules along tokens."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    model.set_attn_implementation("eager")
    with ExitStack() as hooks, torch.no_grad():

        def hook(name: str, module: nn.Module) -> None:
            def after(_: nn.Module, args: Any, out: Any) -> None:
                first = out[0] if isinstance(out, tuple) else out
                if isinstance(first, Tensor) and not torch.compiler.is_compiling():
                    found[name].append(first.detach().clone())

            hooks.callback(module.register_forward_hook(after).remove)

        compiled = tuple(name for name, module in model.named_modules() if "forward" in vars(module))
        for name, module in model.named_modules():
            inside = name.startswith(tuple(f"{each}." for each in compiled))
            if name and not inside and not isinstance(module, nn.ModuleList | nn.Dropout) and "rotary" not in name:
                hook(name, module)
        if len(cuts) == 1:
            model(ids)
        else:
            cache, begin = None, 0
            for end in cuts:
                cache = model(ids[:, begin:end], past_key_values=cache, use_cache=True).past_key_values
                begin = end
    lengths = [end - begin for begin, end in zip([0, *cuts], cuts, strict=False)]
    return {name: torch.cat(each, _along(each, lengths)) for name, each in found.items()}


def _along(parts: list[Tensor], lengths: list[int]) -> int:
    """Return the dimension of the tokens; it may come after the heads. One part needs none (a pooler has none)."""
    if len(parts) == 1:
        return 0
    return next(dim for dim in range(1, parts[0].ndim) if [part.shape[dim] for part in parts] == lengths)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--show", action="store_true", help="print the alarms")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_library()
    runs: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    drifting: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for name in options.models.split(","):
        begin = time.perf_counter()
        models = {dtype: MODELS[name].model(each) for dtype, each in DTYPES.items() if (name, dtype) not in TOO_NARROW}
        for golden, actual in PAIRS:
            if not {golden, actual} <= models.keys():
                continue
            half = (golden, actual) != ("fp32", "fp32")
            for kind, one, other in Ways(MODELS[name], models[golden], models[actual]).all():
                with tempfile.TemporaryDirectory() as folder:
                    stored = Stored(Path(folder) / "golden")
                    sources = {label: stored.source(tensor) for label, tensor in one.items()}
                    run = Recorded({label: [tensor] for label, tensor in other.items()})
                    case = compare_run(sources, run, Stored(Path(folder) / "actual"))
                labels = case.judgement.labels
                runs[kind, half].append(case.judgement.exit_code is not ExitCode.MATCH)
                drifting[kind, half].append(sum(each.status is Status.DRIFT for each in labels) / len(labels))
                own = [each for each in labels if any(v.origin is Origin.OWN for v in each.ranks)]
                if options.show and runs[kind, half][-1]:
                    why = f"{own[0].key.label}: {own[0].ranks[0].reason}" if own else case.judgement.verdict
                    print(f"alarm: {name} {golden}:{actual} {kind}: {why}", flush=True)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
    print("\n| clean runs | half precision: runs | with an alarm | labels that drift | fp32: runs | with an alarm |")
    print("|---|---|---|---|---|---|")
    for kind in dict.fromkeys(kind for kind, _ in runs):
        half, full = runs[kind, True], runs[kind, False]
        drift = sum(drifting[kind, True]) / max(len(half), 1)
        print(f"| {kind} | {len(half)} | {sum(half)} | {drift:.1%} | {len(full)} | {sum(full)} |")
    for half, title in ((True, "half precision"), (False, "fp32")):
        each = [alarm for (_, is_half), found in runs.items() if is_half is half for alarm in found]
        print(f"all {title}: {sum(each)} of {len(each)} runs with an alarm ({sum(each) / max(len(each), 1):.1%})")


if __name__ == "__main__":
    main()
