"""Ties told from wrong tokens on trained weights: flips of clean runs, and flips that planted faults cause.

    python benchmarks/bench_tokens.py [--model smollm2] [--dtypes bf16,fp16,fp32] [--requests 8] [--tokens 40] [--tune]

The model continues beginnings of texts by itself, at temperature 1. Golden computes the logits of these tokens with
eager attention, the reference in float32, and actual with other legitimate kernels or with one faulty layer; all three
are recorded as engines' logits are, and go through the plan, the comparison and the judge. Of a clean run each flip
must be a tie. Of a faulty one each flip must be wrong that the same fault also makes in float32, where there is no
noise; the others may be either, and are only counted. `--tune` prints, for other beginnings, how far flips shift the
difference of the two logits, and how far all logits of the row are off, in standard deviations of the measured noise.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_faults import NONE, Fault, record
from real_weights import DTYPES, TOO_NARROW
from torch import Tensor
from trained import MODELS, Trained

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.label_filter import LabelFilter
from aclcmp.labeling.recorder import Recorder
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.outcomes import OutcomeCollector
from aclcmp.orchestrator.compare.work import compare_batch
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.tokens import TokenState, TokenVerdicts
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.token_verdicts import collect_tokens
from aclcmp.orchestrator.plan.noise_plans import plan_reference
from aclcmp.orchestrator.plan.planner import plan_run

KERNELS = ("sdpa", "halves", "summands", "sdpa+halves+norm")
FAULTS = (
    "rope off by one",
    "rope missing on a head",
    "heads swapped",
    "scaled by 1.2",
    "slice of q reversed",
    "part of v zero",
    "norm without weight",
    "offset",
    "gate and up exchanged",
    "stale cache slot",
)
BEGINNINGS = (
    "Once upon a time", "The theorem states that", "Yesterday the committee", "SELECT name FROM",
    "Der Hund ist", "The patient was", "Our results show",  # codespell:ignore ist
    "He opened the door", "The capital of", "My grandmother used to",
    "In 1969, the", "def sort(values):", "Water boils at", "The stock market", "A recipe for bread:",
    "Dear Sir or Madam,",
)  # fmt: skip
TUNING_BEGINNINGS = (
    "The river", "She wrote a letter", "import os", "According to the law", "An electron", "Le chat", "Add two cups of",
    "The referee", "Chapter 1", "Thank you for", "A neural network", "The castle", "If x is", "Rain is expected",
    "The museum opens", "Every morning",
)  # fmt: skip
SEED = 11
Logits = list[Tensor]


@dataclass
class Count:
    """Flips by what they had to be, and by what they were told to be."""

    told: Counter[tuple[TokenState, TokenState]] = field(default_factory=Counter)
    either: Counter[TokenState] = field(default_factory=Counter)
    rows: int = 0
    shifts: list[float] = field(default_factory=list)
    """Of flips that have to be something, in standard deviations of the noise."""
    rows_off: list[float] = field(default_factory=list)
    """How far all logits of their rows are off, likewise."""

    def right(self, state: TokenState) -> tuple[int, int]:
        """Return how many of the flips that had to be `state` were told so, and how many there were."""
        due = {told: number for (must, told), number in self.told.items() if must is state}
        return due.get(state, 0), sum(due.values())


class Texts:
    """Texts that a model wrote by itself, and its logits of them."""

    def __init__(self, trained: Trained, beginnings: Sequence[str], tokens: int) -> None:
        self.trained = trained
        model = trained.model(torch.float32)
        torch.manual_seed(SEED)
        self.requests = []
        for text in beginnings:
            ids = trained.tokens([text])["input_ids"]
            model.set_attn_implementation("eager")
            written = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=tokens
            )
            self.requests.append((ids.shape[1], written[0]))

    def logits(self, model: Any, kernel: str = "eager", fault: Fault = NONE) -> Logits:
        """Return the logits of the rows that choose the tokens behind each beginning, in the model's dtype."""
        return [
            record(model, self.trained.roles, {"input_ids": ids[None]}, kernel, fault)["lm_head"][0][prompt - 1 : -1]
            for prompt, ids in self.requests
        ]

    def rows(self, request: int) -> Rows:
        """Return the names of a request's rows."""
        prompt, ids = self.requests[request]
        at = range(prompt - 1, len(ids) - 1)
        return Rows(f"{request}", list(at), ids[list(at)].tolist(), None)


def judge(texts: Texts, sides: Mapping[str, Logits], folder: Path) -> TokenVerdicts:
    """Record the sides, compare them and return the verdicts on the tokens."""
    with tempfile.TemporaryDirectory(dir=folder) as shards:
        recorder = Recorder(
            Path(shards), ShardHeader("run", 0, 1, 0, 0, "here", 1, 0.0), True, Capture.FULL, LabelFilter()
        )
        for side, requests in sides.items():
            for number, logits in enumerate(requests):
                recorder.record(side, "lm_head", logits, None, None, "", None, "bench:1", texts.rows(number))
        recorder.close()
        indices = [read_shard(files) for files in shards_in(Path(shards))]
        plan, reference = plan_run(indices, 1), plan_reference(indices, 1)
        outcomes = compare(plan.pairs)
        floors = [] if reference is None else [(FloorSource.REFERENCE, reference, compare(reference.pairs))]
    evidence = collect_evidence(plan, outcomes, run_failed=False)
    tokens = collect_tokens(plan, outcomes, floors)
    (verdicts,) = judge_evidence(type(evidence)(evidence.labels, tokens=tokens)).tokens
    return verdicts


def compare(pairs: Sequence[Pair]) -> Outcomes:
    """Compare pairs in this process."""
    outcomes = OutcomeCollector(pairs)
    outcomes.add(pairs, compare_batch(pairs))
    return outcomes.complete()


def add_flips(count: Count, verdicts: TokenVerdicts, caused: Sequence[bool] | None) -> None:
    """Count the flips of a run: of a clean one (`caused` is None) all have to be ties."""
    count.rows += len(verdicts.states)
    for place, (token, state, _) in enumerate(verdicts):
        if state is TokenState.SAME:
            continue
        if caused is not None and not caused[place]:
            count.either[state] += 1
            continue
        count.told[TokenState.TIE if caused is None else TokenState.WRONG, state] += 1
        count.shifts.append(token.shift / token.noise)
        count.rows_off.append(token.off / token.noise)


def choices(requests: Logits) -> list[int]:
    """Return the best token of each row."""
    return [int(row.float().argmax()) for logits in requests for row in logits]


def runs(texts: Texts, dtype: str, faults: Sequence[str], folder: Path) -> Iterator[tuple[str, Count]]:
    """Yield the flips of the clean runs of a dtype, then those of each fault."""
    single = texts.trained.model(torch.float32)
    model = single if dtype == "fp32" else texts.trained.model(DTYPES[dtype])
    reference = texts.logits(single)
    right = choices(reference)
    golden = {"pta": texts.logits(model)} | ({} if dtype == "fp32" else {"ref": reference})
    clean = Count()
    for kernel in KERNELS:
        add_flips(clean, judge(texts, golden | {"acl": texts.logits(model, kernel)}, folder), None)
    yield "clean", clean
    for number, kind in enumerate(faults):
        depths = texts.trained.depths
        fault = Fault(kind, depths[number % len(depths)])
        count = Count()
        caused = [one != other for one, other in zip(choices(texts.logits(single, "eager", fault)), right, strict=True)]
        actual = texts.logits(model, KERNELS[number % len(KERNELS)], fault)
        add_flips(count, judge(texts, golden | {"acl": actual}, folder), caused)
        yield f"{kind}, layer {fault.layer}", count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtypes", default="bf16,fp16,fp32")
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--faults", type=int, default=len(FAULTS))
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args()
    load_library()
    beginnings = (TUNING_BEGINNINGS if options.tune else BEGINNINGS)[: options.requests]
    texts = Texts(MODELS[options.model], beginnings, options.tokens)
    whole = Count()
    print(f"{'dtype':6}{'run':34}{'tokens':>8}{'flips':>7}  {'right':>11}  either")
    with tempfile.TemporaryDirectory() as folder:
        for dtype in options.dtypes.split(","):
            if (options.model, dtype) in TOO_NARROW:
                continue
            for name, count in runs(texts, dtype, FAULTS[: options.faults], Path(folder)):
                whole.told += count.told
                whole.either += count.either
                state = TokenState.TIE if name == "clean" else TokenState.WRONG
                right, due = count.right(state)
                flips = due + sum(count.either.values())
                either = ", ".join(f"{number} {each.value}" for each, number in count.either.items())
                print(f"{dtype:6}{name:34}{count.rows:8}{flips:7}  {right:5}/{due:<5}  {either}", flush=True)
                if options.tune and count.shifts:
                    for what, values in (("shift", count.shifts), ("row", count.rows_off)):
                        shares = np.percentile(values, [0, 5, 25, 50, 75, 95, 100])
                        print(f"{'':6}{what} / noise, p0 p5 p25 p50 p75 p95 p100:", *(f"{s:.1f}" for s in shares))
    for state in (TokenState.TIE, TokenState.WRONG):
        right, due = whole.right(state)
        print(f"{'ties' if state is TokenState.TIE else 'wrong tokens'} told as such: {right} of {due}")
    right, due = (
        sum(each) for each in zip(*(whole.right(state) for state in (TokenState.TIE, TokenState.WRONG)), strict=True)
    )
    print(f"in all {right} of {due}, {right / max(due, 1):.1%}; {sum(whole.either.values())} more may be either")


if __name__ == "__main__":
    main()
