"""The terminal report: golden text, folding at every size, nothing that steers a terminal, and the advice in words."""

import io
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import Failure, RunRecord
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.report.text.terminal import print_files, print_report
from aclcmp.orchestrator.terminal.console import report_console
from tests.report.made_up import decoder_labels, label, layer_names, record_of, report_of, side, verdict

CULPRIT = ("layers.2.mlp.down.local", 5)


def printed(
    report: Report, width: int = 100, files: Sequence[Path] = (), *, terminal: bool = False, full: bool = False
) -> str:
    """What a pipe gets, or a terminal without colours."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, force_terminal=terminal, color_system=None)
    print_report(report, console, full=full or None)
    print_files(files, console)
    return out.getvalue()


def inherited(layers: int, ranks: int, task: int) -> list[LabelVerdict]:
    held = [verdict(rank, Status.DIVERGED, Origin.INHERITED) for rank in range(ranks)]
    return [label(name, held, task) for name in layer_names(layers)]


GOLDEN = """\
  label                              0 1 2 3 4 5 6 7  rel L2   worst row
task 0
  embed … layers.1  (19)             · · · · · · · ·  4.0e-07  5.9e-07    match
  layers.2.attn … mlp.up  (7)        · · · · · · · ·  4.0e-07  5.9e-07    match
  layers.2.mlp.down.local            · · · · · ✗ · ·  4.2e-01  6.2e-01    diverged  own
  layers.2.mlp.out … lm_head  (264)  ✗ ✗ ✗ ✗ ✗ ✗ ✗ ✗  4.2e-01  6.2e-01    diverged  inherited
tasks 1-3  (873)                     ✗ ✗ ✗ ✗ ✗ ✗ ✗ ✗  4.2e-01  6.2e-01    diverged  inherited

First divergence: layers.2.mlp.down.local, task 0, rank 5 (host a, npu 5), labelled at modeling.py:212
  relative L2 0.42, limit 1e-3 (float32 table); everything before it matches on all ranks.
Report: runs/x/report.json  .csv  .h5
"""


def test_one_rank_goes_wrong() -> None:
    labels = decoder_labels(32, 8, CULPRIT) + [one for task in (1, 2, 3) for one in inherited(32, 8, task)]
    files = [Path("runs/x/report.json"), Path("runs/x/report.csv"), Path("runs/x/report.h5")]
    assert printed(report_of(labels, run=record_of(8)), files=files) == GOLDEN


GOLDEN_80 = """\
  label                        01234567  rel L2   worst row
task 0
  embed … layers.1  (19)       ········  4.0e-07  5.9e-07    match
  layers.2.attn … mlp.up  (7)  ········  4.0e-07  5.9e-07    match
  layers.2.mlp.down.local      ·····✗··  4.2e-01  6.2e-01    diverged  own
  laye…p.out … lm_head  (264)  ✗✗✗✗✗✗✗✗  4.2e-01  6.2e-01    diverged  inherited
"""


def low_level(names: Sequence[str], wrong: Sequence[int]) -> list[LabelVerdict]:
    """Per layer four kernels and the layer's output; in layer 1 kernels go `wrong`, and the output with them."""
    labels = []
    for layer, name in enumerate(names):
        parent = LabelKey(0, name, 0)
        for kernel in range(4):
            bad = layer == 1 and kernel in wrong
            origin = None if not bad else Origin.OWN if kernel == wrong[0] else Origin.INHERITED
            held = [verdict(rank, Status.DIVERGED if bad else Status.MATCH, origin) for rank in range(2)]
            level = Level("op", True, str(layer), parent)
            labels.append(replace(label(f"{name}.k{kernel}", held), level=level))
        status = (Status.DIVERGED, Origin.INHERITED) if layer >= 1 and wrong else (Status.MATCH, None)
        held = [verdict(rank, *status) for rank in range(2)]
        labels.append(replace(label(name, held), level=Level("layer", False, str(layer))))
    return labels


GOLDEN_LOW = """\
  label                      0 1  rel L2   worst row
task 0
  layers.0  (+4 low level)   · ·  4.0e-07  5.9e-07    match
  layers.1                   ✗ ✗  4.2e-01  6.2e-01    diverged  inherited
    └ layers.1.k0 … k1  (2)  · ·  4.0e-07  5.9e-07    match
    └ layers.1.k2            ✗ ✗  4.2e-01  6.2e-01    diverged  own
    └ layers.1.k3            ✗ ✗  4.2e-01  6.2e-01    diverged  inherited
  layers.2  (+4 low level)   ✗ ✗  4.2e-01  6.2e-01    diverged  inherited

First divergence: layers.1.k2 (low-level op inside layers.1), task 0, ranks 0-1, labelled at modeling.py:212
"""


def test_low_level_labels_fold_under_their_layer() -> None:
    names = ("layers.0", "layers.1", "layers.2")
    assert printed(report_of(low_level(names, (2, 3)))).startswith(GOLDEN_LOW)
    assert "All match: 15 labels on 2 ranks" in printed(report_of(low_level(names, ())))


def test_low_level_labels_without_a_layer_stand_for_themselves() -> None:
    labels = [replace(one, level=replace(one.level, parent=None)) for one in low_level(("a", "b"), (1,))]
    text = printed(report_of(labels))
    assert "└" not in text and "low level)" not in text and "b.k1" in text


def test_80_columns() -> None:
    text = printed(report_of(decoder_labels(32, 8, CULPRIT)), 80)
    assert text.startswith(GOLDEN_80)
    assert all(len(line) <= 80 for line in GOLDEN_80.splitlines())


def test_ranks_that_look_alike_share_a_column() -> None:
    text = printed(report_of(decoder_labels(32, 64, CULPRIT)))
    assert "0-4, 6-63  5  rel L2" in text
    assert "layers.2.mlp.down.local            ·          ✗" in text


def test_many_groups_of_ranks_get_letters() -> None:
    bad = {Status.DIVERGED: range(3, 512, 8), Status.DRIFT: range(5, 512, 8)}
    status = {rank: s for s, ranks in bad.items() for rank in ranks}
    text = printed(report_of([label("x", [verdict(rank, status.get(rank, Status.MATCH)) for rank in range(512)])]), 80)
    assert "A  B  C  rel L2" in text
    assert "B = ranks 3, 11, 19, 27, 35, 43, 51, 59, ... (64 ranks)" in text


def test_ranks_without_pattern_are_counted() -> None:
    draw = random.Random(1)
    labels = [
        label(name, [verdict(rank, draw.choice([Status.MATCH, Status.DIVERGED])) for rank in range(64)])
        for name in layer_names(1)
    ]
    diverged = sum(one.status is Status.DIVERGED for one in labels[0].ranks)
    assert f"✗{diverged} ·{64 - diverged}" in printed(report_of(labels), 80)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("ranks", [1, 8, 64])
def test_disorder_stays_short(width: int, ranks: int) -> None:
    """300 labels on which the ranks disagree at random: few lines, none longer than the terminal (72 at least)."""
    draw = random.Random(ranks)
    statuses = [Status.MATCH] * 9 + list(Status)
    labels = [
        label(name, [verdict(rank, draw.choice(statuses), draw.choice([None, *Origin])) for rank in range(ranks)])
        for name in layer_names(33)
    ]
    lines = printed(report_of(labels), width, terminal=True).partition("\n\n")[0].splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= max(width, 72)


def test_what_wavers_after_the_fault_is_one_row() -> None:
    labels = decoder_labels(32, 8, CULPRIT)
    labels[30::2] = [label(one.key.label, [verdict(rank, Status.DRIFT) for rank in range(8)]) for one in labels[30::2]]
    lines = printed(report_of(labels), terminal=True).splitlines()
    assert lines[4].startswith("  layers.2.mlp.down.local")
    assert lines[5].startswith("  layers.2.mlp.out … lm_head  (264)  ✗ ✗ ✗")
    assert lines[6].split() == ["of", "these", "133", "diverged", "(inherited),", "131", "drift"]


def test_a_pipe_gets_all_rows_and_a_terminal_on_request() -> None:
    """Only labels that are alike share a row there, however many rows that makes."""
    labels = decoder_labels(32, 8, CULPRIT)
    labels[30::2] = [label(one.key.label, [verdict(rank, Status.DRIFT) for rank in range(8)]) for one in labels[30::2]]
    piped = printed(report_of(labels))
    assert "mixed" not in piped and len(piped.partition("\n\n")[0].splitlines()) > 264
    assert [line.rstrip() for line in printed(report_of(labels), terminal=True, full=True).splitlines()][:200] == (
        piped.splitlines()[:200]
    )
    tasks = [one for task in range(40) for one in decoder_labels(4, 8, CULPRIT, task)]
    assert printed(report_of(tasks)).count("layers.2.mlp.down.local ") >= 40


def test_a_gap_after_the_fault_is_seen() -> None:
    labels = decoder_labels(32, 8, CULPRIT)
    labels[30::2] = [label(one.key.label, [verdict(rank, Status.DRIFT) for rank in range(8)]) for one in labels[30::2]]
    inherited_or_missing = [
        verdict(rank, Status.MISSING if rank == 3 else Status.DIVERGED, None if rank == 3 else Origin.INHERITED)
        for rank in range(8)
    ]
    labels[99] = label(labels[99].key.label, inherited_or_missing)
    assert re.search(r"layers\.10\.mlp\.out +✗ ✗ ✗ \? ✗ ✗ ✗ ✗", printed(report_of(labels)))


def test_many_tasks_stay_short() -> None:
    labels = [one for task in range(40) for one in decoder_labels(4, 8, CULPRIT, task)]
    text = printed(report_of(labels), terminal=True)
    assert len(text.splitlines()) < 30
    assert re.search(r"tasks [123]-39", text)


def test_a_matching_run_is_one_sentence() -> None:
    assert printed(report_of(decoder_labels(32, 8))) == (
        "All match: 291 labels on 8 ranks, largest relative L2 4.0e-07 at embed.\n"
    )
    bitwise = [label("x", [verdict(0, bitwise=True), verdict(1, bitwise=True)])]
    assert printed(report_of(bitwise)) == "All match, bit for bit: 1 label on 2 ranks.\n"


def test_drift_is_a_warning() -> None:
    labels = decoder_labels(2, 2)
    labels[5] = label(labels[5].key.label, [verdict(0), verdict(1, Status.DRIFT)])
    text = printed(report_of(labels))
    assert "layers.0.attn.out" in text
    assert "· ~" in text
    assert "Nothing diverged; 1 label is above the noise floor: layers.0.attn.out." in text


def test_drift_before_it_is_told() -> None:
    labels = decoder_labels(4, 8, CULPRIT)
    labels[5] = label(labels[5].key.label, [verdict(rank, Status.DRIFT) for rank in range(8)])
    text = printed(report_of(labels))
    assert "before it 25 match, 1 drift." in text
    assert "everything before" not in text


def test_what_else_is_wrong_by_itself() -> None:
    own = verdict(1, Status.DIVERGED, Origin.OWN)
    text = printed(report_of([label(name, [verdict(0), own]) for name in "abcdefg"]))
    assert "First divergence: a, task 0, rank 1, labelled at modeling.py:212" in text
    assert "it is the first label." in text
    assert "Also wrong by itself: b (rank 1), c (rank 1), d (rank 1) and 3 more." in text


def test_from_what_the_first_divergence_inherits() -> None:
    tolerated, wrong = label("a", [verdict(0)]), label("b", [verdict(0, Status.DIVERGED, Origin.OWN)])
    by_itself = report_of([tolerated, wrong])
    assert "It inherits" not in printed(by_itself)
    inherits = replace(wrong, root=tolerated.key)
    judgement = replace(by_itself.judgement, labels=(tolerated, inherits))
    text = printed(replace(by_itself, judgement=judgement))
    assert "First divergence: b, task 0, rank 0" in text
    assert "It inherits from a, which the policy lets pass." in text


def test_the_same_fault_in_every_task() -> None:
    labels = [one for task in range(3) for one in decoder_labels(4, 8, CULPRIT, task)]
    assert "Also wrong by itself: layers.2.mlp.down.local again (tasks 1-2, rank 5)." in printed(report_of(labels))


def test_a_pattern_that_means_no_label_is_told() -> None:
    report = report_of([label("layers.0.mlp", [verdict(0)])])
    rules: dict[str, str | float] = {
        "allow.layers.*.mlp": "",
        "allow.layer.*.mlp": "a",
        "limit.**.attn": 0.1,
        "ignore.**": "b",
    }
    text = printed(replace(report, policy={**report.policy, **rules}))
    assert "No label is called as the policy says: layer.*.mlp, **.attn.\n" in text
    assert "policy says" not in printed(report)


def test_gaps_in_words() -> None:
    no_golden = replace(verdict(2, Status.MISSING), golden=None, actual=side("acl"))
    labels = [
        label("a", [verdict(0), verdict(1, Status.MISSING), no_golden]),
        label("b", [verdict(0), verdict(1, Status.MISMATCH), verdict(2, Status.FAILED)]),
    ]
    folders = printed(report_of(labels, silent=(3, 4)), 200)
    assert (
        "No golden side (pta) for a on rank 2: the golden side has this name, but not as often, or on other" in folders
    )
    text = printed(report_of(labels, silent=(3, 4), run=record_of(5)), 200)
    assert 'No golden side (pta) for a on rank 2: set_label("golden", ...) was not reached there' in text
    assert 'No actual side (acl) for a on rank 1: set_label("actual", ...) was not reached there' in text
    assert "The sides do not fit for b on rank 1: made up as mismatch." in text
    assert "Not recorded or not readable for b on rank 2: made up as failed." in text
    assert "No label at all from ranks 3-4: see logs/rank00003.log." in text
    assert "  ≠ mismatch  ? missing  ! failed\n" in text


def test_figures_of_a_part_are_not_shown_as_those_of_the_label() -> None:
    cut = replace(verdict(0, Status.MISMATCH), metrics=verdict(0).metrics)
    text = printed(report_of([label("a", [verdict(0)]), label("b", [cut])]))
    row = next(line for line in text.splitlines() if line.startswith("  b "))
    assert row.split() == ["b", "≠", "mismatch"]


def _golden_only(name: str) -> LabelVerdict:
    return label(name, [verdict(0, Status.MISSING)])


def _actual_only(name: str) -> LabelVerdict:
    return label(name, [replace(verdict(0, Status.MISSING), golden=None, actual=side(name))])


def test_what_a_kernel_does_not_return_is_left_out_of_the_watch() -> None:
    names = ("layers.0.attention.self", "layers.0.attention")
    labels = [label(name, [verdict(0)]) for name in names] + [_golden_only(f"{name}.1") for name in names]
    text = printed(report_of(labels, run=record_of(1)), 300)
    assert 'watch(..., exclude=["**.self.1", "**.attention.1"]).' in text and "set_label" not in text
    one = printed(report_of([labels[0], labels[2]], run=record_of(1)), 300)
    assert 'watch(..., exclude="**.self.1").' in one


CRASH = Failure(
    rank=0, what="rank 0 (host a) exited with code 1", last_lines=("Traceback", "ValueError: [bold]x\x1b[2J")
)


@pytest.mark.parametrize(
    ("labels", "run", "advice"),
    [
        ([], None, "neither side holds a label."),
        ([], record_of(1).model_copy(update={"launcher": "none"}), "the recording holds no label. Call set_label("),
        ([], record_of(1, CRASH), "the run ended before any label was made."),
        ([_golden_only("a")], None, "only the golden side (pta) was labelled, e.g. a."),
        ([_actual_only("b")], None, "only the actual side (acl) was labelled, e.g. b."),
        (
            [_golden_only("a"), _actual_only("b")],
            None,
            "no data id has both sides; golden (pta) has e.g. a, actual (acl) e.g. b. aclcmp compare GOLDEN ACTUAL "
            "--suggest-map proposes a map of names.",
        ),
        (
            [_golden_only("a"), _actual_only("b")],
            record_of(1),
            "no data id has both sides; golden (pta) has e.g. a, actual (acl) e.g. b. Call set_label(",
        ),
        ([label("c", [verdict(0, Status.FAILED)])], None, "are not readable for c on rank 0"),
    ],
)
def test_nothing_compared(labels: list[LabelVerdict], run: RunRecord | None, advice: str) -> None:
    text = printed(report_of(labels, run=run), 300)
    assert "Nothing was compared" in text
    assert advice in text


def test_a_failed_run_shows_the_log() -> None:
    text = printed(report_of(decoder_labels(1, 1), run=record_of(1, CRASH)))
    assert (
        "Run failed: rank 0 (host a) exited with code 1\n"
        "  | Traceback\n"
        "  | ValueError: [bold]x\\x1b[2J\n"
        "  whole log: logs/rank00000.log\n"
    ) in text


def test_notes_are_shown() -> None:
    assert "Note: layout inferred" in printed(report_of(decoder_labels(1, 1), notes=("layout inferred",)))


def test_a_pipe_gets_plain_lines() -> None:
    out = io.StringIO()
    console = report_console(out)
    print_report(report_of(decoder_labels(32, 8, CULPRIT), run=record_of(8)), console)
    assert "\x1b" not in out.getvalue()
    assert "First divergence: layers.2.mlp.down.local, task 0, rank 5 (host a, npu 5), labelled at" in out.getvalue()
    assert console.width == 120


def test_an_ascii_pipe_gets_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    labels = [*decoder_labels(4, 8, CULPRIT), label("größe", [verdict(rank) for rank in range(8)])]
    print_report(report_of(labels), report_console(out))
    out.flush()
    text = raw.getvalue().decode("ascii")
    assert ". . . . . x . ." in text
    assert "gr\\xf6\\xdfe" in text


def test_a_narrow_terminal_needs_no_scrolling() -> None:
    out = io.StringIO()
    rows = [label(f"layers.{i}", [verdict(0, list(Status)[i % 3])]) for i in range(30)]
    shown = replace(report_of(rows), notes=("a note of many words " * 20,))
    print_report(shown, Console(file=out, width=60, force_terminal=True, color_system=None, highlight=False))
    assert out.getvalue().count("\n") <= 24


def test_colour_in_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system="standard", highlight=False)
    print_report(report_of(decoder_labels(4, 8, CULPRIT)), console)
    assert "\x1b[1;31m✗" in out.getvalue()
