"""Which part of a model moved the margin of a wrong token: the part that is named beside the one with the fault.

    python benchmarks/bench_margins.py [--model smollm2] [--dtypes fp32,bf16] [--requests 5] [--tokens 24] [--faults 10]

Each fault of `bench_tokens.py` is planted in each of three layers, beside other legitimate kernels. As `aclcmp golden`
does, golden records gradients for two tokens of each request that parts, in float32; all goes through the plan, the
comparison and the judge. Of the tokens told as wrong, it prints of how many a part is named, and whether that is in the
layer with the fault, and in its right half (attention, or the feed-forward part). "reached": how far, to first order,
the error at the end of that layer moves the margin, as a share of the real move (quartiles). "direct": how often the
layer would be right by the error's way through the final norm and the head alone, past all layers between.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_tokens import BEGINNINGS, FAULTS, KERNELS, Texts, compare
from real_faults import KINDS, NONE, Fault, Labels, record
from real_weights import DTYPES
from trained import MODELS

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.engines.margin_gradients import Gradient, margin_gradients
from aclcmp.labeling.engines.parted_tokens import PartedTokens, gradient_points
from aclcmp.labeling.label_filter import LabelFilter
from aclcmp.labeling.recorder import Recorder
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.margin_table import Margin
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.margins import pairs_of
from aclcmp.orchestrator.core.tokens import Token, TokenState
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.margin_shares import share_margins
from aclcmp.orchestrator.judge.token_verdicts import collect_tokens
from aclcmp.orchestrator.plan.margin_plans import plan_margins
from aclcmp.orchestrator.plan.noise_plans import plan_reference
from aclcmp.orchestrator.plan.planner import plan_run

LOGITS = "lm_head"
Gradients = dict[Margin, list[Gradient]]


@dataclass
class Count:
    """Wrong tokens whose margin's move was measured."""

    wrong: int = 0
    told: int = 0
    layer: int = 0
    half: int = 0
    direct: int = 0
    reached: list[float] = field(default_factory=list)

    def __iadd__(self, other: Count) -> Count:
        for name in ("wrong", "told", "layer", "half", "direct", "reached"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


class Streams(Texts):
    """Texts, and all that a model returns for them."""

    def labels(self, model: Any, kernel: str = "eager", fault: Fault = NONE) -> list[Labels]:
        """Return for each request the labels of the stream: [rows, features], without the last token's row."""
        found = []
        for prompt, ids in self.requests:
            whole = record(model, self.trained.roles, {"input_ids": ids[None]}, kernel, fault)
            labels = {name: value[0][:-1] for name, value in whole.items() if _is_in_stream(name)}
            found.append({**labels, LOGITS: whole[LOGITS][0][prompt - 1 : -1]})
        return found

    def gradients(self, single: Any, golden: Sequence[Labels], actual: Sequence[Labels]) -> Gradients:
        """Return the gradients of the margins that golden would record if actual had chosen the tokens."""
        parted, found = PartedTokens(), {}
        for number, ((prompt, ids), here, there) in enumerate(zip(self.requests, golden, actual, strict=True)):
            rows = range(prompt - 1, len(ids) - 1)
            chosen = there[LOGITS].float().argmax(dim=-1).tolist()
            logits = torch.zeros(len(ids), here[LOGITS].shape[-1])
            logits[list(rows)] = here[LOGITS].float()
            parted.add(str(number), {row + 1: token for row, token in zip(rows, chosen, strict=True)}, rows, logits)
        single.set_attn_implementation("eager")
        for margin in parted.chosen():
            ids = self.requests[int(margin.request)][1].tolist()
            found[margin] = margin_gradients(
                single, ids[: margin.position], margin.golden, margin.actual, set(golden[0])
            )
        return found


def _is_in_stream(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last in ("embed_tokens", "self_attn") or last.isdecimal() or name in ("model.norm", "norm")


def judge(texts: Streams, sides: dict[str, list[Labels]], gradients: Gradients, folder: Path) -> Iterator[Token]:
    """Record all, compare it, and yield the tokens that are wrong and whose margin's move was measured."""
    header = ShardHeader("run", 0, 1, 0, 0, "here", 1, 0.0)
    with tempfile.TemporaryDirectory(dir=folder) as shards:
        with closing(Recorder(Path(shards), header, True, Capture.FULL, LabelFilter())) as recorder:
            for side, requests in sides.items():
                for number, labels in enumerate(requests):
                    ids = texts.requests[number][1].tolist()[:-1]
                    rows = Rows(str(number), range(len(ids)), ids)
                    for name, value in labels.items():
                        of_label = texts.rows(number) if name == LOGITS else rows
                        recorder.record(side, name, value, None, None, "", None, "bench:1", of_label)
            for margin, each in gradients.items():
                ids = texts.requests[int(margin.request)][1].tolist()[: margin.position]
                recorder.record_margin(margin, gradient_points(margin, ids, each))
        indices = [read_shard(files) for files in shards_in(Path(shards))]
        plan, reference = plan_run(indices, 1), plan_reference(indices, 1)
        outcomes = compare(plan.pairs)
        floors = [] if reference is None else [(FloorSource.REFERENCE, reference, compare(reference.pairs))]
        margins = plan_margins(indices, 1)
        shares = share_margins(margins, compare(pairs_of(margins)))
    evidence = collect_evidence(plan, outcomes, run_failed=False)
    evidence = replace(evidence, tokens=collect_tokens(plan, outcomes, floors, shares))
    for verdicts in judge_evidence(evidence).tokens:
        yield from (token for token, state, _ in verdicts if state is TokenState.WRONG and token.shares)


def count_token(token: Token, fault: Fault, direct: str) -> Count:
    """Count one wrong token of a fault; `direct` is the layer that the direct way names."""
    layer = f"model.layers.{fault.layer}"
    halves = f"{layer}.self_attn", f"{layer}.mlp"
    due = halves[KINDS[fault.kind].roles[0] not in ("q", "k", "v", "o", "context")]
    largest = token.largest_share
    whole = sum(share.moved for share in token.shares)
    names = [share.label for share in token.shares]
    until = sum(share.moved for share in token.shares[: names.index(halves[1]) + 1])
    found = Count(wrong=1, direct=direct == layer, reached=[until / whole])
    if largest is not None:
        found.told, found.layer, found.half = 1, largest.label in halves, largest.label == due
    return found


def direct_layer(gradients: Sequence[Gradient], golden: Labels, actual: Labels, row: int) -> str:
    """Return the layer whose own error moves the margin most through the final norm and the head alone."""
    ends = {each.labels[0]: each.value for each in gradients if each.labels[-1].rpartition(".")[2].isdecimal()}
    names = list(ends)
    through = ends[names[-1]][-1].double()
    reached = [0.0, *(float(through @ (golden[name][row] - actual[name][row]).double()) for name in names)]
    return names[int(np.diff(reached).argmax())]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--faults", type=int, default=len(FAULTS))
    options = parser.parse_args()
    load_library()
    texts = Streams(MODELS[options.model], BEGINNINGS[: options.requests], options.tokens)
    single = texts.trained.model(torch.float32)
    reference = texts.labels(single)
    print(f"{'dtype':6}{'fault':26}{'wrong':>6}{'told':>6}{'layer':>7}{'half':>6}{'direct':>8}  reached, quartiles")
    with tempfile.TemporaryDirectory() as folder:
        for dtype in options.dtypes.split(","):
            model = single if dtype == "fp32" else texts.trained.model(DTYPES[dtype])
            golden = texts.labels(model)
            of_dtype = Count()
            for number, kind in enumerate(FAULTS[: options.faults]):
                count = Count()
                for depth in texts.trained.depths:
                    fault = Fault(kind, depth)
                    actual = texts.labels(model, KERNELS[number % len(KERNELS)], fault)
                    gradients = texts.gradients(single, golden, actual)
                    sides = {"pta": golden, "acl": actual} | ({} if dtype == "fp32" else {"ref": reference})
                    for token in judge(texts, sides, gradients, Path(folder)):
                        request = int(token.request)
                        margin = Margin(token.request, token.position, token.golden, token.actual)
                        at = token.position - 1
                        direct = direct_layer(gradients[margin], golden[request], actual[request], at)
                        count += count_token(token, fault, direct)
                show(dtype, kind, count)
                of_dtype += count
            show(dtype, "all", of_dtype)


def show(dtype: str, kind: str, count: Count) -> None:
    """Print one line."""
    quartiles = " ".join(f"{each:.2f}" for each in np.percentile(count.reached, [25, 50, 75])) if count.wrong else ""
    print(
        f"{dtype:6}{kind:26}{count.wrong:6}{count.told:6}{count.layer:7}{count.half:6}{count.direct:8}  {quartiles}",
        flush=True,
    )


if __name__ == "__main__":
    main()
