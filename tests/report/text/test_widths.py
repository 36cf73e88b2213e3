"""No printed line is wider than the terminal, and no number is cut: narrow, usual and wide ones."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from aclcmp.orchestrator.core.diagnosis import Hint, Pattern
from aclcmp.orchestrator.core.job import Placement
from aclcmp.orchestrator.core.plan import GapKind
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import Failure
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.report.text.table import table
from aclcmp.orchestrator.report.text.terminal import print_report
from aclcmp.orchestrator.terminal.cells import fold_words, shorten
from aclcmp.orchestrator.terminal.screen import Screen
from tests.report.made_up import decoder_labels, label, record_of, report_of, verdict

WIDTHS = (60, 80, 200)
LONG = "model.decoder.block.17.self_attention.query_key_value_projection.lora_adapters.12.output"


def long_labels(ranks: int) -> list[LabelVerdict]:
    statuses = [*Status]
    labels = []
    for number in range(24):
        verdicts = [verdict(rank, statuses[(number + rank) % len(statuses)]) for rank in range(ranks)]
        labels.append(label(f"{LONG}.{number}", verdicts, task=number % 3))
    return labels


def with_cause(report: Report) -> Report:
    first = report.judgement.first_divergence
    assert first is not None
    pattern = Pattern(
        first.key, {0: 1.0}, "rank 1 alone of 8: its weights, its slice or its device", "rows " + LONG, ""
    )
    hint = Hint(first.key, first.ranks, "scale", f"it is golden's {LONG}: outputs, weights or names exchanged?", 1.0)
    return replace(report, patterns=(pattern,), hints=(hint,))


def mismatched(ranks: int) -> list[LabelVerdict]:
    wide = replace(verdict(0, Status.MISMATCH), gap=GapKind.MISMATCH, reason=f"golden [4, 8]: {LONG} does not fit")
    absent = [replace(verdict(rank, Status.MISSING), gap=GapKind.MISSING_GOLDEN) for rank in range(ranks)]
    return [label("x", [verdict(0)]), label(LONG, [wide]), label(f"{LONG}.golden", absent)]


REPORTS = {
    "a decoder on 8 ranks": with_cause(
        report_of(decoder_labels(4, 8, ("layers.2.mlp.down.local", 5)), run=record_of(8))
    ),
    "a decoder on 256 ranks": report_of(decoder_labels(4, 256, ("layers.2.mlp.down.local", 200))),
    "long names": report_of(long_labels(8)),
    "long names on 100 ranks": report_of(long_labels(100)),
    "long names on one rank": report_of(long_labels(1)),
    "many tasks": report_of([one for task in range(0, 60, 3) for one in decoder_labels(1, 4, ("embed", 1), task)]),
    "gaps": report_of(mismatched(12), notes=(f"layout inferred for {LONG}", "/a/very/long/path" * 12)),
    "a failed run": report_of(
        decoder_labels(1, 2, ("embed", 1)),
        run=record_of(2, Failure(rank=1, what=f"{LONG} failed", last_lines=("x" * 150,))),
    ),
    "names that are wide": report_of(
        [label("层" * 40, [verdict(0, Status.DIVERGED, Origin.OWN)]), label("b", [verdict(0)])]
    ),
}


def lines_of(report: Report, width: int) -> list[str]:
    out = io.StringIO()
    print_report(report, Console(file=out, width=width, highlight=False, force_terminal=True, color_system=None))
    return out.getvalue().split("\n")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", REPORTS)
def test_no_line_is_wider_than_the_terminal(kind: str, width: int) -> None:
    lines = lines_of(REPORTS[kind], width)
    assert len(lines) > 3
    assert [line for line in lines if cell_len(line) > width] == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", REPORTS)
@pytest.mark.parametrize("plain", [False, True])
def test_figures_and_counts_are_whole(kind: str, width: int, plain: bool) -> None:
    report = REPORTS[kind]
    ranks = sorted({each.rank for one in report.judgement.labels for each in one.ranks})
    narrow, wide = ([text.plain for text in table(report.judgement, ranks, cells, plain)] for cells in (width, 1000))
    assert [line for line in narrow if cell_len(line) > width] == []
    figures = re.compile(r"(?<![\d.])\d\.\de[+-]\d\d(?!\d)")
    sizes = re.compile(r"\(\d[\d,]*\)")
    for pattern in (figures, sizes):
        known = set(pattern.findall("\n".join(wide)))
        assert set(pattern.findall("\n".join(narrow))) <= known
    counted = sum(int(size.strip("()").replace(",", "")) for size in sizes.findall("\n".join(narrow)))
    assert counted == sum(int(size.strip("()").replace(",", "")) for size in sizes.findall("\n".join(wide)))
    assert "rel L2" in narrow[0]


def test_the_narrow_table_leaves_names_some_room() -> None:
    report = REPORTS["a decoder on 8 ranks"]
    header = table(report.judgement, range(8), 60, False)[0].plain
    assert header.index("rel L2") > 20 + len("0 1 2 3 4 5 6 7") - 8 and "worst row" not in header
    assert "worst row" in table(report.judgement, range(8), 80, False)[0].plain


@given(st.text("ab.0123456789", max_size=40), st.integers(5, 30))
def test_no_number_is_cut_in_two(text: str, width: int) -> None:
    short = shorten(text, width)
    assert cell_len(short) <= width
    if short != text:
        head, _, tail = short.partition("…")
        assert text.startswith(head) and text.endswith(tail)
        for cut, at in ((head, len(head)), (tail, len(text) - len(tail))):
            is_cut = 0 < at < len(text) and text[at - 1].isdigit() and text[at].isdigit()
            assert not is_cut or cut.isdigit(), "only a number that begins or ends the text, and has no room"


@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=20), st.integers(12, 40))
def test_words_are_folded_and_none_is_lost(words: list[str], width: int) -> None:
    lines = list(fold_words(words, width, "  "))
    assert " ".join(lines).split() == words and all(len(line) <= width and line.startswith("  ") for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bars(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, force_terminal=True, color_system=None)
    screen = Screen(console)
    with screen:
        screen.on_start([Placement(0, rank, rank, 16, 0, "n", "10.0.0.1", "h", (), ()) for rank in range(16)])
        screen.show_label_totals(1_234_567, 987_654_321_000)
        screen.add_pairs(98_765)
        screen.advance(12_345, 1_000_000)
        screen.show([Text("below")])
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.getvalue())
    assert "12,345/98,765" in text
    assert [line for line in re.split(r"[\r\n]", text) if cell_len(line) > width] == []
