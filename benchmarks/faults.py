"""Shares of runs in which each rule names the culprit first, and of its false alarms: planted faults and clean runs.

    python benchmarks/faults.py [--model decoder|transformer|both] [--seeds 1,2,3] [--tune]

Two models of 16 layers, float32 and bfloat16, on 1 rank and on 4: a decoder written out (`faulty_decoder.py`) and a
Qwen3 as transformers computes it (`faulty_transformer.py`). 16 and 18 kinds of faults are planted at layers 2, 8 and
13; the seeds for tuning are others than those for the table. Golden is the same model without a fault on one rank,
actual has other kernels. A fault is visible if at its first wrong label the relative L2 of the whole, or of the worst
row, is at least three times that of the same run without the fault. Each rule sees the same statistics, and only them.

For our own rules it also prints which labels after the culprit they call `own` although the culprit's error explains
them, and, in runs with two faults that are each visible alone, how often both are called `own`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import faulty_decoder
import faulty_transformer
import torch
from fault_cases import Case, Model, cases, seeds_of

from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import Origin
from aclcmp.orchestrator.judge.judge import judge

MODELS: dict[str, Model] = {"decoder": faulty_decoder, "transformer": faulty_transformer}

Rule = Callable[[Case], list[str]]
"""The labels that a rule finds wrong (ours: wrong by themselves), in order."""


def ours(case: Case) -> list[str]:
    """Return the labels that this project's judge calls wrong by themselves."""
    judgement = judge(case.plan, case.stats, run_failed=False)
    return [
        label.key.label for label in judgement.labels if any(verdict.origin is Origin.OWN for verdict in label.ranks)
    ]


def by_metric(test: Callable[[Metrics, PairStats], bool]) -> Rule:
    """Return a rule that looks at each label alone."""

    def rule(case: Case) -> list[str]:
        wrong = (key.label for (key, rank), m in case.metrics.items() if test(m, case.stats[key, rank]))
        return list(dict.fromkeys(wrong))

    return rule


def by_rule(
    metrics: Mapping[tuple[LabelKey, int], Metrics],
    stats: Mapping[tuple[LabelKey, int], PairStats],
    rules: Mapping[str, Rule],
) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each rule that looks at each label alone, and the labels that it finds wrong."""
    for name, test in TESTS.items():
        if name in rules:
            wrong = (key.label for (key, rank), m in metrics.items() if test(m, stats[key, rank]))
            yield name, list(dict.fromkeys(wrong))


OURS: dict[str, Rule] = {"aclcmp": ours}
TESTS: dict[str, Callable[[Metrics, PairStats], bool]] = {
    "torch.testing.assert_close": lambda m, s: s.n_over_tolerance > 0,
    "cosine < 0.99": lambda m, s: m.cosine < 0.99,
    "PCC < 0.9999": lambda m, s: m.pcc < 0.9999,
    "msprobe (cosine 0.99 and max_abs 1e-3, cosine 0.9, max_abs 1)": lambda m, s: (
        m.cosine < 0.9 or m.max_abs > 1 or (m.cosine < 0.99 and m.max_abs > 1e-3)
    ),
    "SGLang (1 - similarity > 1e-3)": lambda m, s: m.sg_rel > 1e-3,
}
"""Limits that other tools apply to each label."""
RULES: dict[str, Rule] = OURS | {name: by_metric(test) for name, test in TESTS.items()}


@dataclass
class Tally:
    """Counts of what a rule found."""

    first: Counter[str] = field(default_factory=Counter)
    """Of runs with one fault: "first" (the culprit is), "other" (another label is) or "none"."""
    missed: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By kind of fault: place and finding of each run whose culprit is not named first."""
    alarms: Counter[str] = field(default_factory=Counter)
    """Labels of clean runs."""
    false_roots: Counter[str] = field(default_factory=Counter)
    """Labels after the culprit that are called wrong by themselves, of runs with one fault."""
    misled: int = 0
    """Runs with such labels."""
    two: Counter[str] = field(default_factory=Counter)
    """Of runs with two faults: the faults that are found."""
    two_apart: Counter[str] = field(default_factory=Counter)
    """The same, of those in which the second one is visible beside the first one's error."""

    def add(self, case: Case, wrong: list[str]) -> None:
        """Count what was found in one run."""
        if not case.faults:
            self.alarms.update(wrong)
        elif len(case.faults) == 1:
            self._add_one(case, wrong)
        else:
            one, other = (roots[0] in wrong for roots in case.roots)
            what = {(True, True): "both", (True, False): "the first", (False, True): "the second"}.get((one, other))
            self.two[what or "none"] += 1
            if case.apart:
                self.two_apart[what or "none"] += 1

    def _add_one(self, case: Case, wrong: list[str]) -> None:
        culprit, (fault,) = case.roots[0][0], case.faults
        what = "none" if not wrong else "first" if wrong[0] == culprit else "other"
        self.first[what] += 1
        if what != "first":
            self.missed[fault.kind][f"{case.dtype} {culprit} {what} {wrong[:1]}"] += 1
        order = [label.key.label for label in case.plan.labels]
        after = set(order[order.index(culprit) :]).difference(*case.roots)
        false = [label for label in wrong if label in after]
        self.false_roots.update(f"{label} after {culprit} ({fault.kind}, {case.dtype})" for label in false)
        self.misled += bool(false)


@dataclass
class Totals:
    """Numbers of runs and labels that each rule got."""

    runs: Counter[int] = field(default_factory=Counter)
    """By number of faults."""
    clean_labels: int = 0
    labels_after: int = 0
    """Labels after the culprit in runs with one fault."""
    apart: int = 0

    def add(self, case: Case) -> None:
        """Count one run."""
        self.runs[len(case.faults)] += 1
        if not case.faults:
            self.clean_labels += len(case.plan.labels)
        elif len(case.faults) == 1:
            order = [label.key.label for label in case.plan.labels]
            self.labels_after += len(order) - order.index(case.roots[0][0]) - 1
        else:
            self.apart += case.apart


def print_tables(name: str, totals: Totals, tallies: dict[str, Tally], *, tune: bool) -> None:
    """Print what the rules found in one model's runs."""
    print(
        f"\n{name}: {totals.runs[1]:,} runs with one visible fault, {totals.runs[2]:,} with two, "
        f"{totals.runs[0]} clean runs of {totals.clean_labels:,} labels"
    )
    print(f"{'rule':64} {'first':>6} {'other':>6} {'none':>6}  false alarms per 1,000 clean labels")
    for rule, tally in tallies.items():
        shares = [f"{tally.first[what] / totals.runs[1]:6.1%}" for what in ("first", "other", "none")]
        print(f"{rule:64} {' '.join(shares)}  {1000 * tally.alarms.total() / totals.clean_labels:.1f}")
    for rule in OURS:
        tally = tallies[rule]
        print(
            f"{rule}: of {totals.labels_after:,} labels after a culprit {tally.false_roots.total():,} are called own, "
            f"in {tally.misled} of {totals.runs[1]:,} runs"
        )
        for what, counts, runs in (
            ("two faults", tally.two, totals.runs[2]),
            ("two faults, the second visible beside the first", tally.two_apart, totals.apart),
        ):
            named = ", ".join(f"{key} {counts[key] / max(runs, 1):.1%}" for key in _FOUND)
            print(f"{rule}: {what} ({runs:,} runs), called own: {named}")
        if tune:
            for fault, each in tally.missed.items():
                print(f"    {fault}: {each.total()}", *[f"\n        {n} x {w}" for w, n in each.most_common(8)])
            print("    alarms:", tally.alarms.most_common(12))
            print("    own after the culprit:", *[f"\n        {n} x {w}" for w, n in tally.false_roots.most_common(12)])
    sys.stdout.flush()


_FOUND = ("both", "the first", "the second", "none")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--seeds", default="")
    parser.add_argument("--tune", action="store_true", help="the seeds for tuning, and what is missed")
    options = parser.parse_args()
    seeds = seeds_of(options.seeds, tune=options.tune)
    torch.set_num_threads(1)
    load_library()
    names = list(MODELS) if options.model == "both" else [options.model]
    all_totals = Totals()
    all_tallies = {rule: Tally() for rule in RULES}
    for name in names:
        start = time.perf_counter()
        totals = Totals()
        tallies = {rule: Tally() for rule in RULES}
        for case in cases(MODELS[name], seeds):
            totals.add(case)
            all_totals.add(case)
            for rule, find in RULES.items():
                wrong = find(case)
                tallies[rule].add(case, wrong)
                all_tallies[rule].add(case, wrong)
        print_tables(f"{name} ({time.perf_counter() - start:.0f} s)", totals, tallies, tune=options.tune)
    if len(names) > 1:
        print_tables("both", all_totals, all_tallies, tune=False)


if __name__ == "__main__":
    main()
