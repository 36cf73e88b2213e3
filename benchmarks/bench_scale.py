"""Merging, judging and reporting 1,024 ranks x 1,000 labels, from made-up statistics; the same for 256 ranks.

    python benchmarks/bench_scale.py [--ranks 256 1024] [--labels 1000] [--rows 16] [--only merge ...]

The labels are two tasks of a decoder. Most of them match, and 0.02 % are missing; in the second task one label goes
wrong on one rank, and all later ones on all ranks of its group of 64. A tenth of the labels comes in two parts. Each
report is written by a fork of the process that judged; peak memory is that of the process, with the plan and the
statistics that it was given. Bounds: merging and judging in 30 s and 2 GiB, linear (ratio 4 within 1.3), report.h5
up to 1 GB.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from aclcmp.orchestrator.compare.outcomes import OutcomeCollector
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan, Plan, SideFacts, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RankRecord, RankState, RunRecord
from aclcmp.orchestrator.core.stats import PairStats, RowSums
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import Policy

KINDS = ("norm", "attn.q", "attn.k", "attn.v", "attn.out", "mlp.gate", "mlp.up", "mlp.act", "mlp.out", "out")
GROUP = 64
BATCH = 512
PARTS = Region((0, 0), (8, 32)), Region((8, 0), (8, 32))
SIZES = (
    "sum_x",
    "sum_y",
    "sum_xx",
    "sum_yy",
    "sum_xy",
    "max_abs_d_x",
    "max_abs_d_y",
    "min_x",
    "max_x",
    "min_y",
    "max_y",
)
ERRORS = ("sum_d", "sum_dd", "sum_abs_d", "sum_rel_d", "max_abs_d", "max_rel_d")
COUNTS = ("n_over_1k", "n_over_5k", "n_over_tolerance", "max_abs_d_index", "max_ulp", "n_equal")


def keys_of(labels: int) -> list[LabelKey]:
    """Return the labels of two tasks in golden order."""
    half = -(-labels // 2)
    return [
        LabelKey(n // half, f"model.layers.{n % half // len(KINDS)}.{KINDS[n % len(KINDS)]}", 0) for n in range(labels)
    ]


def fault_of(labels: int, ranks: int) -> tuple[int, int]:
    """Return the numbers of the label and the rank that are wrong by themselves."""
    return labels * 7 // 10, min(ranks // 2 + 5, ranks - 1)


def plan_of(ranks: int, labels: int) -> Plan:
    """Return a plan as the planner makes it: pairs of one region or two, and a few gaps."""
    whole = Region.whole((16, 32))
    paths = [f"/runs/20260101-120000/shards/rank{rank:05d}.h5" for rank in range(ranks)]
    devices = [f"npu:{rank % 8}" for rank in range(ranks)]
    planned = []
    for number, key in enumerate(keys_of(labels)):
        regions = PARTS if number % 10 == 9 else (whole,)
        sides, pairs, gaps = {}, [], []
        for rank in range(ranks):
            at, offset = 1_700_000_000.0 + number, 4096 * (2 * number + 1)
            facts = SideFacts(paths[rank], "bfloat16", (16, 32), devices[rank], "modeling.py:212", number, at)
            sides[rank] = Sides(facts, facts)
            if (number * 31 + rank * 17) % 4999 == 0:
                gaps.append(Gap(key, rank, GapKind.MISSING_ACTUAL, "no actual side on this rank; other ranks have it"))
                continue
            source = Source(paths[rank], offset, "bfloat16", (16, 32), "full", 1024, rank)
            pairs += [Pair(key, rank, source, each, source, each, (16, 32), each, "same shape") for each in regions]
        planned.append(LabelPlan(key, sides, tuple(pairs), tuple(gaps)))
    levels = {label.key: level_of(label.key.label, "", "") for label in planned}
    return Plan(tuple(planned), levels, (), 0, ())


def bases_of(rows: int) -> list[PairStats]:
    """Return the statistics of real small tensors with round-off, with a fault, and with an inherited error."""
    from aclcmp.orchestrator.compare.kernels.load_library import load_library
    from aclcmp.orchestrator.compare.pair import Operand, pair_stats

    load_library()
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, 32)).astype(np.float32)
    noise = random.standard_normal(x.shape)
    region = Region.whole(x.shape)
    found = []
    for error in (2e-3, 0.6, 0.3):
        y = (x + error * noise).astype(np.float32)
        sides = [Operand(each.ravel(), "float32", x.shape, region) for each in (x, y)]
        found.append(pair_stats(sides[0], sides[1], x.shape, region))
    return found


class MadeUp:
    """Statistics of pairs: those of real small tensors, each time with other figures."""

    def __init__(self, ranks: int, labels: int, rows: int) -> None:
        """Compare real tensors of three errors: round-off, a fault, and one that is inherited."""
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # the kernels' 250 MiB are not what is measured
            bases = pool.submit(bases_of, rows).result()
        names = [f.name for f in fields(PairStats) if f.name != "rows"]
        self._bases = [({name: getattr(base, name) for name in names}, base.rows) for base in bases]
        self._fault = fault_of(labels, ranks)
        self._factors = np.random.default_rng(1).lognormal(0.0, 0.1, 4093).tolist()

    def of(self, number: int, rank: int, part: Region) -> PairStats:
        """Return the statistics of one pair of the label of this number."""
        label, culprit = self._fault
        alike = rank // GROUP == culprit // GROUP
        kind = 1 if (number, rank) == self._fault else 2 if number > label and alike else 0
        base, rows = self._bases[kind]
        factor = self._factors[(number * 1031 + rank * 7) % 4093] * (1.0 + number / 1000)
        error = self._factors[(number * 523 + rank * 31) % 4093]
        values = base | {name: base[name] * factor for name in SIZES}
        values |= {name: base[name] * factor * error for name in ERRORS}
        values |= {name: (number * 7 + rank * each) % 100 for each, name in enumerate(COUNTS, 3)}
        index = rows.index if part.start == (0, 0) else rows.index + len(rows.index)
        return PairStats(rows=RowSums(rows.group, index, rows.sum_xx * factor, rows.sum_dd * factor * error), **values)


def batches(plan: Plan, made: MadeUp) -> Iterator[tuple[list[Pair], list[PairStats | str]]]:
    """Yield pairs and statistics rank by rank, as compare actors send those of their host."""
    places = [0] * len(plan.labels)
    for rank in range(1 + max(label.pairs[-1].rank for label in plan.labels)):
        of_rank = []
        for number, label in enumerate(plan.labels):
            pairs, place = label.pairs, places[number]
            while place < len(pairs) and pairs[place].rank == rank:
                of_rank.append((number, pairs[place]))
                place += 1
            places[number] = place
        for start in range(0, len(of_rank), BATCH):
            some = of_rank[start : start + BATCH]
            yield [pair for _, pair in some], [made.of(number, pair.rank, pair.region) for number, pair in some]


def record_of(ranks: int) -> RunRecord:
    """Return the record of a run on hosts of eight ranks."""
    each = tuple(
        RankRecord(
            rank=rank,
            local_rank=rank % 8,
            host=f"host{rank // 8}",
            ip="10.0.0.1",
            node_id=f"n{rank // 8}",
            devices=(str(rank % 8),),
            state=RankState.FINISHED,
            exit_code=0,
            started=1_700_000_000.0,
            finished=1_700_000_060.0,
        )
        for rank in range(ranks)
    )
    return RunRecord(
        run_id="20260101-120000",
        command=("python", "run.py"),
        cwd="/model",
        launcher="ray",
        device="npu",
        visibility="node",
        cluster="local Ray",
        started=1_700_000_000.0,
        finished=1_700_000_060.0,
        versions={},
        environment={},
        ranks=each,
    )


def peak() -> float:
    """Return the process's peak memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def line(what: str, seconds: float, cpu: float, memory: float, size: str = "") -> None:
    """Print one row of the table."""
    print(f"  {what:44} {seconds:7.1f} s {cpu:7.1f} s of CPU {memory:7,.0f} MiB  {size}", flush=True)


class Clock:
    """Seconds and CPU seconds of the code inside the `with` blocks."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._begun[0]
        self.cpu += time.process_time() - self._begun[1]


def run_in_fork(work: Callable[[], None], what: str, path: Path | None) -> None:
    """Run `work` in a fork of this process, which has the judgement already, and print its row of the table."""
    sys.stdout.flush()
    if child := os.fork():
        os.waitpid(child, 0)
        return
    try:
        clock = Clock()
        with clock:
            work()
        size = f"{path.stat().st_size / 1e6:,.1f} MB" if path is not None and path.exists() else ""
        line(what, clock.seconds, clock.cpu, peak(), size)
    finally:
        sys.stdout.flush()
        os._exit(0)


def measure(ranks: int, labels: int, rows: int, folder: Path, only: list[str]) -> None:
    """Measure one size in this process, and write its report into a folder."""
    started = time.perf_counter()
    plan, made = plan_of(ranks, labels), MadeUp(ranks, labels, rows)
    gc.collect()
    gc.disable()  # it took a third of the time of making them up; the stages see to it themselves
    print(f"{ranks:,} ranks x {labels:,} labels; plan made up in {time.perf_counter() - started:.0f} s", flush=True)
    line("the plan alone", 0.0, 0.0, peak())
    merging, evidencing, judging = Clock(), Clock(), Clock()
    with merging:
        collected = OutcomeCollector(plan.pairs)
    for some, results in batches(plan, made):
        with merging:
            collected.add(some, results)
        del some, results
    gc.enable()
    with merging:
        outcomes = collected.complete()
    del collected
    line("merging", merging.seconds, merging.cpu, peak())
    with evidencing:
        evidence = collect_evidence(plan, outcomes, run_failed=False)
    line("evidence", evidencing.seconds, evidencing.cpu, peak())
    policy = Policy()
    with judging:
        judgement = judge_evidence(evidence, policy)
    line("judging", judging.seconds, judging.cpu, peak())
    total = merging.seconds + evidencing.seconds + judging.seconds
    cpu = merging.cpu + evidencing.cpu + judging.cpu
    line("merging and judging", total, cpu, peak(), f"{1e6 * cpu / (ranks * labels):.1f} us of CPU for each")
    (folder / "total").write_text(json.dumps([total, cpu, peak()]))
    counts = judgement.coverage
    print(f"  {judgement.verdict}: {judgement.first_divergence and judgement.first_divergence.key.label}, {counts}")
    record = record_of(ranks)
    report = Report(record, record.run_id, judgement, policy.table())
    del evidence, outcomes, plan
    gc.freeze()
    write_all(report, folder, only)


def write_all(report: Report, folder: Path, only: list[str]) -> None:
    """Write every form of the report, each in a process of its own."""
    from aclcmp.orchestrator.report.as_csv import write_csv
    from aclcmp.orchestrator.report.as_json import write_json
    from aclcmp.orchestrator.report.as_junit import write_junit
    from aclcmp.orchestrator.report.h5.writer import write_h5
    from aclcmp.orchestrator.report.html.page import write_html
    from aclcmp.orchestrator.report.text.terminal import print_report
    from aclcmp.orchestrator.terminal.console import report_console

    assert report.run is not None
    (folder / "run.json").write_text(report.run.model_dump_json(by_alias=True))
    writers = {"json": write_json, "csv": write_csv, "h5": write_h5, "xml": write_junit, "html": write_html}
    for name, write in writers.items():
        path = folder / f"report.{name}"
        if not only or name in only:
            run_in_fork(lambda write=write, path=path: write(report, path), f"report.{name}", path)
    if not only or "terminal" in only:
        with (folder / "screen.txt").open("w") as screen:
            run_in_fork(lambda: print_report(report, report_console(screen)), "terminal", None)


def command(*arguments: str) -> None:
    """Run aclcmp, and print its time and memory."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen([sys.executable, "-m", "aclcmp", *arguments], stdout=subprocess.DEVNULL) as process:
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before.ru_utime
    shown = " ".join(each for each in arguments if "/" not in each)
    line(f"aclcmp {shown}", time.perf_counter() - begun, cpu, used.ru_maxrss / 1024)


def main() -> None:
    """Print the tables and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--only", nargs="*", default=[], help="json csv h5 xml html terminal verdict explain diff none")
    parser.add_argument("--in", dest="folder", type=Path)
    options = parser.parse_args()
    if options.folder is not None:
        measure(options.ranks[0], options.labels, options.rows, options.folder, options.only)
        return
    totals = []
    for ranks in options.ranks:
        with TemporaryDirectory() as name:
            folder = Path(name)
            sizes = ["--ranks", str(ranks), "--labels", str(options.labels), "--rows", str(options.rows)]
            only = ["--only", *options.only] if options.only else []
            subprocess.run([sys.executable, __file__, *sizes, *only, "--in", name], check=True)
            totals.append(json.loads((folder / "total").read_text()))
            label = keys_of(options.labels)[fault_of(options.labels, ranks)[0]].label
            commands = {"verdict": (name,), "report": (name,), "explain": (name, label), "diff": (name, name)}
            for each, arguments in commands.items():
                if not options.only or each in options.only:
                    command(each, *arguments)
    for (first, first_cpu, _), (last, last_cpu, _) in pairwise(totals):
        print(f"ratio of merging and judging: {last / first:.2f} ({last_cpu / first_cpu:.2f} of CPU)")


if __name__ == "__main__":
    main()
