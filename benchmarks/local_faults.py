"""Shares of runs with two and three faults in which all of them are named: by the carried errors, and by `--local`.

    python benchmarks/local_faults.py [--pairs 80] [--triples 80] [--seed 1] [--dtype float32]

Golden is SmolLM2 with its trained weights, cut to three layers, in eager attention. Actual has other kernels (sdpa, and
matmuls in halves) and faults of different modules, drawn at random: weights scaled, rounded, permuted or zeroed in
part, another eps, rope base, activation, scale or mask of attention, residual. Both are watched with their inputs,
all but the logits; the judge has its default policy. A label is due for each fault: the first that the faulty
code computes.
"""

from __future__ import annotations

import argparse
import copy
import gc
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["ACLCMP_SHARD_DIR"] = tempfile.mkdtemp(prefix="aclcmp-local-faults-")

import torch
from torch import nn
from torch.nn import functional
from trained import SMOLLM2, TEXTS

from aclcmp import watch
from aclcmp.labeling import api
from aclcmp.labeling.golden_values.substitution import substitution
from aclcmp.labeling.identity import GOLDEN, SHARD_DIR
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.core.evidence import Evidence
from aclcmp.orchestrator.core.verdicts import Origin
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.own_errors import add_own_errors, own_errors
from aclcmp.orchestrator.plan.planner import plan_two

LAYERS = 3
_TOKENS = 32


@dataclass(frozen=True)
class Kind:
    """A kind of fault: into which modules it is planted, how, and the label that is due, by the module's name."""

    modules: tuple[str, ...]
    plant: Callable[[Any], None]
    label: str = "{}"
    also: str = ""
    """Another label that the same code computes, and that is wrong by itself too."""


_LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_LINEARS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm")


def _change(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    weight: Any = module.weight
    weight.data = change(weight.data.clone())


def _round(weight: torch.Tensor) -> torch.Tensor:
    """Round float32 to bfloat16, and a half type to float8 e4m3."""
    narrow = torch.bfloat16 if weight.dtype is torch.float32 else torch.float8_e4m3fn
    return weight.to(narrow).to(weight.dtype)


def _zero_row(weight: torch.Tensor) -> torch.Tensor:
    weight[7] = 0.0
    return weight


def _permute_rows(weight: torch.Tensor) -> torch.Tensor:
    weight[:8] = weight[:8].flip(0).clone()
    return weight


def _replace(module: Any, name: str, value: Any) -> None:
    setattr(module, name, value)


def _without_mask(attention: Any) -> None:
    inner = attention.forward
    attention.is_causal = False
    attention.forward = lambda *args, **kwargs: inner(*args, **{**kwargs, "attention_mask": _open(kwargs)})


def _open(kwargs: dict[str, Any]) -> torch.Tensor:
    tokens = kwargs["hidden_states"].shape[1]
    return torch.zeros(1, 1, tokens, tokens, dtype=kwargs["hidden_states"].dtype)


def _short_residual(layer: Any) -> None:
    """The layer adds nine tenths of what its attention gives to the residual."""

    def forward(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
        hidden = hidden_states + 0.9 * attended
        total: torch.Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return total

    layer.forward = forward


KINDS: dict[str, Kind] = {
    "scaled by 1.02": Kind(_LINEARS + _NORMS, lambda m: _change(m, lambda w: w * 1.02)),
    "rounded to fewer bits": Kind(_LINEARS, lambda m: _change(m, _round)),
    "a row zeroed": Kind(_LINEARS, lambda m: _change(m, _zero_row)),
    "eight rows permuted": Kind(_LINEARS, lambda m: _change(m, _permute_rows)),
    "another eps": Kind(_NORMS, lambda m: _replace(m, "variance_epsilon", 1e-3)),
    "scale of attention": Kind(("self_attn",), lambda m: _replace(m, "scaling", m.scaling * 1.05), "{}.o_proj.input"),
    "no causal mask": Kind(("self_attn",), _without_mask, "{}.o_proj.input"),
    "gelu for silu": Kind(("mlp",), lambda m: _replace(m, "act_fn", _Gelu()), "{}.act_fn"),
    "short residual": Kind(("",), _short_residual, "{}.post_attention_layernorm.input", "{}"),
    "another rope base": Kind(("model.rotary_emb",), lambda m: _rope(m), "{}", "{}.1"),
}


class _Gelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.gelu(x)


def _rope(module: Any) -> None:
    size = module.inv_freq.numel()
    module.inv_freq = 20_000.0 ** (-torch.arange(size) / size)
    module.original_inv_freq = module.inv_freq


@dataclass(frozen=True)
class Fault:
    """A fault of one module."""

    kind: str
    module: str

    @property
    def due(self) -> str:
        """The label that it makes wrong first."""
        return KINDS[self.kind].label.format(self.module)

    @property
    def labels(self) -> set[str]:
        """All labels that it makes wrong by themselves."""
        return {self.due, KINDS[self.kind].also.format(self.module)}


def all_faults() -> list[Fault]:
    """Return every fault there is."""
    found = []
    for kind, each in KINDS.items():
        for module in each.modules:
            layers = [f"model.layers.{layer}.{module}".rstrip(".") for layer in range(LAYERS)]
            found += [Fault(kind, name) for name in ([module] if module.startswith("model.") else layers)]
    return found


def draw(count: int, generator: random.Random, faults: list[Fault]) -> tuple[Fault, ...]:
    """Return so many faults of different modules and different labels."""
    while True:
        chosen = tuple(generator.sample(faults, count))
        if len({fault.module for fault in chosen}) == len({fault.due for fault in chosen}) == count:
            return chosen


def load(dtype: torch.dtype, attention: str) -> Any:
    """Load the model, cut to its first layers."""
    model = SMOLLM2.model(dtype, attention)
    model.model.layers = model.model.layers[:LAYERS]
    model.config.num_hidden_layers = LAYERS
    return model


def use_other_kernels(model: Any) -> None:
    """Let all projections add up two halves, as another legitimate kernel may."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = lambda x, m=module: _in_halves(x, m.weight)


def _in_halves(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return functional.linear(x[..., :half], weight[:, :half]) + functional.linear(x[..., half:], weight[:, half:])


@contextmanager
def recording(folder: Path, golden: Path | None = None) -> Iterator[None]:
    """Record labels into a folder, with golden's values if they are given."""
    folder.mkdir()
    os.environ[SHARD_DIR] = str(folder)
    os.environ.pop(GOLDEN, None)
    if golden is not None:
        os.environ[GOLDEN] = str(golden)
    api._local = golden is not None
    substitution.cache_clear()
    yield
    assert api._recorder is not None
    api._recorder.close()
    api._recorder = None


def record(model: Any, side: str, tokens: torch.Tensor, folder: Path, golden: Path | None = None) -> list[ShardIndex]:
    """Run a model and return its shards."""
    with recording(folder, golden), torch.no_grad(), watch(model, side, include="model.**", inputs=True):
        model(tokens, use_cache=False)
    return [read_shard(files) for files in shards_in(folder)]


def evidence_of(golden: list[ShardIndex], actual: list[ShardIndex]) -> Evidence:
    """Compare two runs."""
    plan = plan_two(golden, actual, 1)
    pairs = [pair for label in plan.labels for pair in label.pairs]
    return collect_evidence(plan, LocalComparer().compare_pairs(pairs, lambda *_: None), run_failed=False)


def own_labels(evidence: Evidence) -> list[str]:
    """Return the labels that the judge calls wrong by themselves."""
    labels = judge_evidence(evidence).labels
    return [label.key.label for label in labels if any(verdict.origin is Origin.OWN for verdict in label.ranks)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=80)
    parser.add_argument("--triples", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_library()
    generator, dtype = random.Random(options.seed), getattr(torch, options.dtype)
    tokens = SMOLLM2.tokens([TEXTS[0]])["input_ids"][:, :_TOKENS]
    faults = all_faults()
    golden_model, right = load(dtype, "eager"), load(dtype, "sdpa")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        golden = record(golden_model, "golden", tokens, root / "golden")
        counts: dict[str, Counter[int]] = {"carried": Counter(), "local": Counter()}
        extra: dict[str, Counter[int]] = {"carried": Counter(), "local": Counter()}
        missed: Counter[str] = Counter()
        runs: Counter[int] = Counter()
        sizes = [0, *[2] * options.pairs, *[3] * options.triples]
        start = time.perf_counter()
        for number, size in enumerate(sizes):
            chosen = draw(size, generator, faults) if size else ()
            gc.collect()  # the model before is in circles
            model = copy.deepcopy(right)
            use_other_kernels(model)
            for fault in chosen:
                KINDS[fault.kind].plant(model.get_submodule(fault.module))
            carried = evidence_of(golden, record(model, "actual", tokens, root / f"{number}-carried"))
            local = evidence_of(golden, record(model, "actual", tokens, root / f"{number}-local", root / "golden"))
            due = {fault.due for fault in chosen}
            expected = set[str]().union(*(fault.labels for fault in chosen))
            runs[size] += 1
            for name, evidence in (("carried", carried), ("local", add_own_errors(carried, own_errors(local)))):
                named = set(own_labels(evidence))
                counts[name][size] += due <= named
                extra[name][size] += len(named - expected)
                if name == "local":
                    missed.update(fault.kind for fault in chosen if fault.due not in named)
                    if named - expected or due - named:
                        also = sorted(named - expected)
                        print(f"    {[(f.kind, f.due) for f in chosen]}: also {also}", file=sys.stderr)
            print(f"\r{number + 1} of {len(sizes)}", end="", file=sys.stderr, flush=True)
            for folder in (root / f"{number}-carried", root / f"{number}-local"):
                for file in folder.iterdir():
                    file.unlink()
        print(f"SmolLM2, {LAYERS} layers, {options.dtype}, {time.perf_counter() - start:.0f} s")
        for size in (0, 2, 3):
            for name in ("carried", "local"):
                share = f"all named in {counts[name][size]} of {runs[size]}" if size else "no fault"
                print(f"  {size} faults, {name:8} {share}; {extra[name][size]} labels named besides")
        if missed:
            print("  missed:", ", ".join(f"{kind} {number}" for kind, number in missed.most_common()))


if __name__ == "__main__":
    main()
