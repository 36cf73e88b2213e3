"""Shares of planted faults with a right hint, and with a wrong one.

    python benchmarks/hints.py [--model decoder|transformer] [--seeds 1,2,3] [--tune] [--show]

The models, faults and depths are those of `faults.py`. The faults that count are visible, and the judge finds them at
the right label. Where a reduction over 4 ranks is missing, each rank has its own summand. Runs are judged and diagnosed
as for a report. A hint is right if FITTING lists its kind for the fault, and not wrong if ALSO does. Faults that
FITTING does not list have no closed form: for them every hint is wrong, as is every hint for the round-off of clean
runs, which is diagnosed as if it had diverged. `--tune` takes the seeds for tuning, which are others than those for the
table.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import faulty_decoder
import torch
from fault_cases import DEPTHS, VISIBLE, Model, seeds_of
from planting import Fault, Recorded, Setting

from aclcmp.orchestrator.compare.diagnosis.excerpt import excerpt_of
from aclcmp.orchestrator.compare.diagnosis.second_look import diagnose_pairs
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.diagnosis import Looks, Suspect
from aclcmp.orchestrator.core.levels import level_of, with_parents
from aclcmp.orchestrator.core.metrics import Metrics, all_metrics, metrics_of
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import Outcomes, PairStats
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.judge.hints import hints_of
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.diagnose import diagnose

CLEAN = "(round-off, by label)"
_EVERY = 7  # one of so many labels of a clean run is diagnosed, to save time; 7 lets all kinds of labels come up

FITTING: dict[str, set[str]] = {
    "rope missing on a head": {"stretch channel"},
    "scaled by 1.04": {"scale"},
    "one token wrong": {"one row"},
    "slice permuted": {"reversed", "permuted channels"},
    "reduced twice": {"scale"},
    "reduction missing": {"scale", "missing reduction"},
    "rows shifted": {"shifted rows"},
    "saturated": {"saturation"},
    "offset": {"offset"},
    "heads swapped": {"permuted channels", "shifted channels"},
    "norm eps 0.1": {"scale", "scale by row"},
    "cast to float8": {"down-cast"},
    "weight of q_norm missing": {"scale by channel"},
}
"""Faults that have a closed form, and the kinds of hints that are right for each."""
ALSO: dict[str, set[str]] = {"gate and up swapped": {"another label"}}
"""Kinds of hints that are right where the model labels both tensors, though they are not due."""
BEHIND_A_PROJECTION = {"transformer": ("rope missing on a head", "heads swapped")}
"""Faults that a model labels only behind a projection, which mixes their error."""

FACTS = SideFacts("f", "float32", (), "cpu", "m.py:1", 0, 0.0)


class Stored:
    """Tensors in a file, as the comparison reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(b"")

    def source(self, tensor: torch.Tensor, rank: int = 0) -> Source:
        """Append a tensor to the file, and return its place."""
        offset = self.path.stat().st_size
        flat = tensor.contiguous().reshape(-1)
        with self.path.open("ab") as out:
            out.write(flat.view(torch.uint8).numpy().tobytes())
        dtype = str(tensor.dtype).removeprefix("torch.")
        return Source(str(self.path), offset, dtype, tuple(tensor.shape), rank=rank)


@dataclass
class Compared:
    """A run compared with golden, and its judgement."""

    plan: Plan
    outcomes: Outcomes
    judgement: Judgement

    @property
    def stats(self) -> dict[tuple[LabelKey, int], PairStats]:
        """Statistics by label and rank."""
        return {name: each for name, each in self.outcomes.items() if isinstance(each, PairStats)}

    @cached_property
    def metrics(self) -> dict[tuple[LabelKey, int], Metrics]:
        """Metrics by label and rank."""
        stats = self.stats
        return dict(zip(stats, all_metrics(list(stats.values())), strict=True))

    def metrics_by_name(self) -> dict[str, Metrics]:
        """Return metrics by label, for a run of one rank."""
        return {key.label: each for (key, _), each in self.metrics.items()}


def compare(pairs: Sequence[Pair]) -> Outcomes:
    """Compare pairs in this process."""
    return {(pair.key, pair.rank): read_pair_stats(pair) for pair in pairs}


def look(suspects: Sequence[Suspect]) -> Looks:
    """Diagnose suspects in this process."""
    return {suspect.name: diagnose_pairs(suspect) for suspect in suspects}


def compare_run(goldens: dict[str, Source], actual: Recorded, stored: Stored) -> Compared:
    """Compare and judge a run."""
    labels = []
    for name, tensors in actual.labels.items():
        key, golden = LabelKey(0, name, 0), goldens[name]
        pairs = []
        for rank, tensor in enumerate(tensors):
            shape = tuple(tensor.shape)
            start = (0,) * (len(shape) - 1) + (rank * shape[-1] if shape != golden.shape else 0,)
            region = Region(start, shape)
            layout = "same shape" if shape == golden.shape else "Shard(dim=-1)"
            source = stored.source(tensor, rank)
            pairs.append(Pair(key, rank, golden, region, source, Region.whole(shape), golden.shape, region, layout))
        labels.append(LabelPlan(key, dict.fromkeys(range(len(tensors)), Sides(FACTS, FACTS)), tuple(pairs)))
    keys = [label.key for label in labels]
    levels = with_parents({key: level_of(key.label, "", "") for key in keys}, keys)
    plan = Plan(tuple(labels), levels, (), 0, ())
    outcomes = compare(plan.pairs)
    return Compared(plan, outcomes, judge(plan, outcomes, run_failed=False))


def run_with_fault(run: Callable[[Setting], Recorded], setting: Setting, culprit: str) -> Recorded:
    """Run with a fault; if it is a missing reduction, each rank keeps its own summand of the culprit."""
    found = run(setting)
    (fault,) = setting.faults
    if fault.kind == "reduction missing" and setting.ranks > 1:
        each = [run(replace(setting, faults=(replace(fault, rank=rank),))) for rank in range(setting.ranks)]
        found.labels[culprit] = [recorded.labels[culprit][rank] for rank, recorded in enumerate(each)]
    return found


def visible(case: Compared, sound: Compared, label: str) -> bool:
    """Tell whether a label's error, of the whole or the worst row, is VISIBLE times the clean run's on some rank."""
    for name, outcome in case.outcomes.items():
        if name[0].label == label:
            other = sound.outcomes[name]
            assert isinstance(outcome, PairStats) and isinstance(other, PairStats)
            one, two = metrics_of(outcome), metrics_of(other)
            if one.rel_l2 > VISIBLE * two.rel_l2 or one.worst_row > VISIBLE * two.worst_row:
                return True
    return False


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="decoder", choices=["decoder", "transformer"])
    parser.add_argument("--seeds", default="")
    parser.add_argument("--tune", action="store_true", help="the seeds for tuning")
    parser.add_argument("--show", action="store_true", help="print what is said of each run that is not right")
    parser.add_argument("--faults", default="", help="only these, by commas")
    options = parser.parse_args()
    seeds = seeds_of(options.seeds, tune=options.tune)
    torch.set_num_threads(1)
    load_library()
    model: Model = faulty_decoder
    if options.model == "transformer":
        import faulty_transformer

        model = faulty_transformer
    behind = BEHIND_A_PROJECTION.get(options.model, ())
    table = Table({fault: kinds for fault, kinds in FITTING.items() if fault not in behind}, options.show)
    faults = options.faults.split(",") if options.faults else list(model.FAULTS)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for outlier in (False, True):
                of_seed(model, seed, outlier, faults, Path(folder), table)
    table.print()


def of_seed(model: Model, seed: int, outlier: bool, faults: Sequence[str], folder: Path, table: Table) -> None:
    """Run the model of a seed with each fault, in both types, on 1 rank and on 4."""
    run = model.subject(seed, outlier=outlier)
    for dtype in (torch.float32, torch.bfloat16):
        golden = run(Setting(dtype))
        stored = Stored(folder / "golden")
        goldens = {name: stored.source(tensors[0]) for name, tensors in golden.labels.items()}
        for ranks in (1, 4):
            clean = Setting(dtype, ranks, other_kernels=True)
            sound = compare_run(goldens, run(clean), Stored(folder / "sound"))
            table.clean(sound)
            for number, fault in enumerate(model.FAULTS):
                for layer in DEPTHS if fault in faults else ():
                    culprit = model.NAME.format(layer, model.FAULTS[fault][0])
                    setting = replace(clean, faults=(Fault(fault, layer, (number + layer) % ranks),))
                    here = compare_run(goldens, run_with_fault(run, setting, culprit), Stored(folder / "actual"))
                    if visible(here, sound, culprit):
                        what = f"{str(dtype)[6:]}, {ranks} ranks, {culprit}, seed {seed}{', outlier' * outlier}"
                        table.add(fault, here, what, culprit)


class Table:
    """Counts by fault."""

    def __init__(self, fitting: dict[str, set[str]], show: bool) -> None:
        self.fitting = fitting
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.kinds: dict[str, Counter[str]] = defaultdict(Counter)
        self.show = show

    def clean(self, sound: Compared) -> None:
        """Count the hints for a run without a fault, as if each of its labels had diverged: they explain round-off."""
        for label in sound.plan.labels[::_EVERY]:
            pair, *_ = label.pairs
            stats = sound.outcomes[pair.key, pair.rank]
            assert isinstance(stats, PairStats)
            if stats.sum_dd == 0.0:
                continue
            diagnosis = diagnose_pairs(Suspect((pair,), 1.0, excerpt_of([pair], stats.rows)))
            (verdict,) = [each for each in sound.judgement.labels if each.key == pair.key]
            wrong = replace(verdict, ranks=(replace(verdict.ranks[0], status=Status.DIVERGED),))
            said = hints_of(wrong, {pair.rank: diagnosis})
            self.counts[CLEAN]["runs"] += 1
            self.counts[CLEAN]["wrong"] += bool(said)
            self.kinds[CLEAN].update(hint.kind for hint in said)

    def add(self, fault: str, here: Compared, what: str, culprit: str) -> None:
        """Count the hints for the first divergence of a run."""
        first = here.judgement.first_divergence
        count = self.counts[fault]
        if first is None or first.key.label != culprit:
            count["not found"] += 1
            return
        looks, patterns, hints = diagnose(here.plan, here.judgement, compare, look)
        said = [hint for hint in hints if hint.key == first.key]
        fitting = self.fitting.get(fault, set())
        right = [hint for hint in said if hint.kind in fitting]
        wrong = [hint for hint in said if hint.kind not in fitting | ALSO.get(fault, set())]
        count["runs"] += 1
        count["right"] += bool(right)
        count["wrong"] += bool(wrong)
        self.kinds[fault].update({hint.kind for hint in said})
        if self.show and (wrong or (fitting and not right)):
            (pattern,) = [each for each in patterns if each.key == first.key]
            print(f"{fault}: {what}: {[(hint.kind, round(hint.explained, 3), hint.words) for hint in said]}")
            print(f"    {pattern.ranks} | {pattern.rows} | {pattern.channels}")
            for (key, rank), diagnosis in looks.items():
                if key == first.key:
                    fits = [(fit.kind, round(fit.explained, 3)) for fit in diagnosis.fits]
                    print(f"    rank {rank}: {fits}", flush=True)

    def print(self) -> None:
        """Print the table."""
        print(f"{'fault':26} {'runs':>5} {'right':>7} {'wrong':>7}  {'not found':>9}  kinds")
        closed: Counter[str] = Counter()
        for fault, count in self.counts.items():
            runs = max(count["runs"], 1)
            right = f"{count['right'] / runs:7.1%}" if fault in self.fitting else "      -"
            kinds = ", ".join(f"{kind} {number}" for kind, number in self.kinds[fault].most_common())
            print(f"{fault:26} {count['runs']:5} {right} {count['wrong'] / runs:7.1%}  {count['not found']:9}  {kinds}")
            if fault in self.fitting:
                closed.update({**count})
        runs = max(closed["runs"], 1)
        right_share, wrong_share = closed["right"] / runs, closed["wrong"] / runs
        print(f"with a closed form: right {right_share:.1%} of {closed['runs']} runs, wrong {wrong_share:.1%}")


if __name__ == "__main__":
    main()
