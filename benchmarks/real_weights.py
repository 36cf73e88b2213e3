"""False alarms, culprits and hints of each rule on trained models: clean runs, and runs with planted faults.

    python benchmarks/real_weights.py [--models smollm2,minilm,gemma3] [--dtypes bf16,fp16,fp32] [--tune] [--show]
        [--no-hints] [--faults KINDS]

SmolLM2-135M, MiniLM and Gemma 3 270M with their trained weights (`trained.py` says how to get them), as transformers
runs them. Clean runs: golden with eager attention beside other, legitimate kernels (sdpa, an online softmax, matmuls in
halves, summands as tensor parallelism has them, norms in another order of operations, several together), in six pairs
of types. Faults: about 50 kinds at three depths, for two texts (`real_faults.py`). A fault is visible if the error at
its first wrong label, of the whole, the median row or the worst row, is at least three times that of the same run
without it. `--tune` takes the texts with which constants were chosen; Gemma's faults were not used to choose any.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from faults import RULES, by_rule
from hints import Compared, Stored, compare, compare_run, look
from planting import Recorded
from real_faults import KINDS, Fault, Kind, Labels, culprits, record
from trained import MODELS, TEXTS, TUNING_TEXTS, Trained

from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.regions import Source
from aclcmp.orchestrator.core.verdicts import Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.pipeline.diagnose import diagnose

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PAIRS = (("bf16", "bf16"), ("fp32", "bf16"), ("fp16", "fp16"), ("fp32", "fp16"), ("bf16", "fp16"), ("fp32", "fp32"))
KERNELS = ("sdpa", "online", "halves", "summands", "norm", "sdpa+halves+norm")
BESIDE = ("sdpa", "halves", "sdpa+summands", "online+norm")
"""Kernels with which faults are planted, in turn."""
VISIBLE = 3.0
TOO_NARROW = {("gemma3", "fp16")}
"""Gemma's activations exceed the range of float16: an infinite value there is no false alarm."""


@dataclass
class Clean:
    """Counts of clean runs."""

    runs: int = 0
    labels: int = 0
    drifting: int = 0
    alarms: Counter[str] = field(default_factory=Counter)
    """By rule: runs in which it finds anything."""


@dataclass
class Found:
    """Counts of what was found in runs with a visible fault."""

    runs: int = 0
    rules: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By rule: "first", "other" or "none"."""
    misled: int = 0
    """Runs with a label after the culprit that we call wrong by itself."""
    hints: Counter[str] = field(default_factory=Counter)
    """Of faults whose culprit we name first: "closed" (a hint is due), "right" and "wrong"."""

    def add(self, other: Found) -> None:
        """Add the counts of others."""
        self.runs += other.runs
        self.misled += other.misled
        self.hints.update(other.hints)
        for rule, counts in other.rules.items():
            self.rules[rule].update(counts)


class Subject:
    """One trained model on one text."""

    def __init__(self, trained: Trained, text: str, folder: Path) -> None:
        self.trained, self.folder = trained, folder
        self.inputs = {k: v for k, v in trained.tokens([text]).items() if k != "token_type_ids"}
        self._models: dict[str, Any] = {}
        self._goldens: dict[str, dict[str, Source]] = {}

    def model(self, dtype: str) -> Any:
        """Return the model in one element type."""
        if dtype not in self._models:
            self._models[dtype] = self.trained.model(DTYPES[dtype])
        return self._models[dtype]

    def golden(self, dtype: str) -> dict[str, Source]:
        """Return the labels of golden, which lie in a file."""
        if dtype not in self._goldens:
            stored = Stored(self.folder / f"golden-{dtype}")
            labels = record(self.model(dtype), self.trained.roles, self.inputs)
            self._goldens[dtype] = {name: stored.source(tensor) for name, tensor in labels.items()}
        return self._goldens[dtype]

    def beside(self, golden: str, actual: str, *how: Any) -> Compared:
        """Run with other kernels and a fault (`how`), and compare with golden."""
        labels: Labels = record(self.model(actual), self.trained.roles, self.inputs, *how)
        run = Recorded({name: [tensor] for name, tensor in labels.items()})
        return compare_run(self.golden(golden), run, Stored(self.folder / "actual"))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--dtypes", default="bf16,fp16,fp32", help="of runs with faults")
    parser.add_argument("--tune", action="store_true", help="the texts by which constants were chosen")
    parser.add_argument("--show", action="store_true", help="print what is missed, and wrong hints")
    parser.add_argument("--no-hints", action="store_true", help="verdicts alone, which take a fifth of the time")
    parser.add_argument("--faults", default="", help="only these kinds, by commas; no clean runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load_library()
    clean: dict[tuple[str, str, str], Clean] = defaultdict(Clean)
    found: dict[tuple[str, str], Found] = defaultdict(Found)
    kinds = options.faults.split(",") if options.faults else list(KINDS)
    for name in options.models.split(","):
        for text in TUNING_TEXTS if options.tune else TEXTS:
            begin = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                subject = Subject(MODELS[name], text, Path(folder))
                if not options.faults:
                    clean_runs(subject, clean)
                for dtype in options.dtypes.split(","):
                    if (name, dtype) not in TOO_NARROW:
                        found[name, dtype].add(
                            faulty_runs(subject, dtype, kinds, show=options.show, hints=not options.no_hints)
                        )
            print(f"{name}, {len(text)} characters: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    print_clean(clean)
    print_found(found)


def clean_runs(subject: Subject, clean: dict[tuple[str, str, str], Clean]) -> None:
    """Run all pairs of types with all kernels."""
    name = subject.trained.name
    for golden, actual in PAIRS:
        if (name, golden) in TOO_NARROW or (name, actual) in TOO_NARROW:
            continue
        for kernel in KERNELS:
            case = subject.beside(golden, actual, kernel)
            count = clean[name, golden, actual]
            count.runs += 1
            count.labels += len(case.judgement.labels)
            count.drifting += sum(label.status is Status.DRIFT for label in case.judgement.labels)
            for rule, wrong in by_rule(case.metrics, case.stats, RULES):
                count.alarms[rule] += bool(wrong)
            count.alarms["aclcmp"] += case.judgement.exit_code is not ExitCode.MATCH


def faulty_runs(subject: Subject, dtype: str, kinds: Sequence[str], *, show: bool, hints: bool) -> Found:
    """Plant every fault that the model can have."""
    found = Found()
    roles, config = subject.trained.roles, subject.model(dtype).config
    sound = {kernel: subject.beside(dtype, dtype, kernel).metrics_by_name() for kernel in BESIDE}
    for number, kind in enumerate(KINDS):
        if kind not in kinds or not KINDS[kind].needs(roles, config):
            continue
        kernel = BESIDE[number % len(BESIDE)]
        for layer in subject.trained.depths:
            fault = Fault(kind, layer)
            roots = culprits(roles, fault)
            case = subject.beside(dtype, dtype, kernel, fault)
            if is_visible(case.metrics_by_name()[roots[0]], sound[kernel][roots[0]]):
                where = f"{subject.trained.name} {dtype} {kind} {layer}"
                if count(found, case, roots, where if show else "") and hints:
                    count_hints(found, case, roots[0], KINDS[kind], where if show else "")
    return found


def is_visible(with_fault: Metrics, without: Metrics) -> bool:
    """Tell whether an error is more than VISIBLE times what it is without the fault, or not a number."""
    figures = ("rel_l2", "row_p50", "worst_row")
    pairs = [(getattr(with_fault, name), getattr(without, name)) for name in figures]
    return with_fault.mismatch_share != with_fault.mismatch_share or any(
        not one <= VISIBLE * other for one, other in pairs
    )


def count(found: Found, case: Compared, roots: tuple[str, ...], where: str) -> bool:
    """Count what the rules find of a visible fault; return whether ours names the culprit first."""
    found.runs += 1
    labels = case.judgement.labels
    own = [label.key.label for label in labels if any(v.origin is Origin.OWN for v in label.ranks)]
    for rule, wrong in [("aclcmp", own), *by_rule(case.metrics, case.stats, RULES)]:
        found.rules[rule]["none" if not wrong else "first" if wrong[0] == roots[0] else "other"] += 1
    order = [label.key.label for label in labels]
    behind = [name for name in own if order.index(name) > order.index(roots[0]) and name not in roots]
    found.misled += bool(behind)
    if where and (not own or own[0] != roots[0]):
        print(f"missed: {where}: {own[:1] or 'nothing'}", flush=True)
    if where and behind:
        print(f"false root: {where}: {behind[:2]}", flush=True)
    return bool(own) and own[0] == roots[0]


def count_hints(found: Found, case: Compared, culprit: str, kind: Kind, where: str) -> None:
    """Count the hints for a culprit that is named first."""
    _, patterns, hints = diagnose(case.plan, case.judgement, compare, look)
    said = [hint for hint in hints if hint.key.label == culprit]
    (pattern,) = [each for each in patterns if each.key.label == culprit]
    right = any(hint.kind in kind.hints for hint in said) or (kind.place != "" and kind.place in pattern.rows)
    wrong = any(hint.kind not in kind.hints | kind.also for hint in said)
    due = bool(kind.hints or kind.place)
    found.hints["closed"] += due
    found.hints["right"] += right
    found.hints["wrong"] += wrong
    if where and (wrong or (due and not right)):
        print(f"hint: {where}: {[(hint.kind, hint.words) for hint in said]}", flush=True)


def print_clean(clean: dict[tuple[str, str, str], Clean]) -> None:
    """Print the counts of clean runs."""
    print("\n| clean runs | runs | with a false alarm | labels that drift |")
    print("|---|---|---|---|")
    for (name, golden, actual), each in clean.items():
        drift = each.drifting / max(each.labels, 1)
        print(f"| {name}, {golden} : {actual} | {each.runs} | {each.alarms['aclcmp']} | {drift:.1%} |")
    half = [each for key, each in clean.items() if key[1:] != ("fp32", "fp32")]
    runs = sum(each.runs for each in half) or 1
    print(f"\nHalf precision: {runs} clean runs; with an alarm, by rule:")
    for rule in ("aclcmp", *[rule for rule in RULES if rule != "aclcmp"]):
        alarms = sum(each.alarms[rule] for each in half)
        print(f"    {rule}: {alarms} ({alarms / runs:.1%})")
    labels = sum(each.labels for each in clean.values()) or 1
    print(f"Labels that drift, of all clean ones: {sum(each.drifting for each in clean.values()) / labels:.2%}")


def print_found(found: dict[tuple[str, str], Found]) -> None:
    """Print the counts of runs with faults."""
    rows = [(f"{name}, {dtype}", each) for (name, dtype), each in found.items()]
    for title, dtypes in (("all half precision", ("bf16", "fp16")), ("all fp32", ("fp32",))):
        total = Found()
        for (_, dtype), each in found.items():
            if dtype in dtypes:
                total.add(each)
        rows.append((title, total))
    print(
        "\n| visible faults | runs | culprit first | another first | nothing | a false root | right hint | wrong hint |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for title, each in rows:
        if each.runs:
            ours = each.rules["aclcmp"]
            shares = [f"{ours[what] / each.runs:.1%}" for what in ("first", "other", "none")]
            closed = each.hints["closed"]
            right = f"{each.hints['right'] / closed:.1%} of {closed}" if closed else "-"
            wrong = f"{each.hints['wrong'] / max(ours['first'], 1):.1%}" if closed else "-"
            print(
                f"| {title} | {each.runs} | {' | '.join(shares)} | {each.misled / each.runs:.1%} | {right} | {wrong} |"
            )
    print("\n| rule | " + " | ".join(title for title, each in rows[-2:] if each.runs) + " |")
    print("|---|" + "---|" * sum(bool(each.runs) for _, each in rows[-2:]))
    for rule in ("aclcmp", *[rule for rule in RULES if rule != "aclcmp"]):
        shares = [f"{each.rules[rule]['first'] / each.runs:.1%}" for _, each in rows[-2:] if each.runs]
        print(f"| {rule} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
