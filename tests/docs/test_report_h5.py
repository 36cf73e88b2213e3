"""docs/report-h5.md is true: its lines run one after the other on a real report.h5 and print what the page says."""

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.metrics import metrics_of
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, RankVerdict, Status
from aclcmp.orchestrator.judge.pair_status import judge_pair
from aclcmp.orchestrator.report.h5.writer import write_h5
from tests.report.made_up import LIMITS, label, layer_names, record_of, report_of, stats_of, verdict

DOC = (Path(__file__).parents[2] / "docs" / "report-h5.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", DOC, re.DOTALL)
LAYERS, RANKS, CULPRIT = 4, 4, "layers.2.attn.out"


@cache
def compared(error: float, row: int | None) -> RankVerdict:
    """The verdict on 6 rows with a relative L2 error of `error`, in one row alone or in all."""
    golden = np.random.default_rng(7).standard_normal((6, 4))
    noise = np.random.default_rng(8).standard_normal((6, 4))
    if row is not None:
        noise[np.arange(6) != row] = 0
    stats = stats_of(golden, golden + error * np.linalg.norm(golden) / np.linalg.norm(noise) * noise)
    metrics = metrics_of(stats)
    status, margin, reason = judge_pair(stats, metrics, LIMITS)
    return replace(verdict(0), status=status, reason=reason, stats=stats, metrics=metrics, margin=margin)


def made_up_labels() -> Iterator[LabelVerdict]:
    """Round-off that grows; one token of the culprit wrong on the last rank, then all tokens on all ranks; a gap."""
    names = layer_names(LAYERS)
    at = names.index(CULPRIT)
    for seq, name in enumerate(names):
        ranks = []
        for rank in range(RANKS):
            if name == "layers.3.mlp.gate" and rank == 1:
                absent = verdict(rank, Status.MISSING)
                ranks.append(replace(absent, reason="no actual side on this rank; other ranks have it: 0, 2, 3"))
                continue
            odd = seq > at or (seq == at and rank == RANKS - 1)
            found = compared(0.1 * 1.1 ** (seq - at) if odd else 2e-7 * 1.05**seq, 4 if seq == at and odd else None)
            origin = (Origin.OWN if seq == at else Origin.INHERITED) if found.status is Status.DIVERGED else None
            ranks.append(replace(found, rank=rank, origin=origin))
        yield replace(label(name, ranks), level=level_of(name, "", ""))


@cache
def made_up_report() -> Report:
    report = report_of(list(made_up_labels()), run=record_of(RANKS))
    first = report.judgement.first_divergence
    assert first is not None
    why = next(v.reason for one in report.judgement.labels for v in one.ranks if v.origin is Origin.OWN)
    return replace(report, judgement=replace(report.judgement, first_divergence=replace(first, why=why)))


def printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each block of the page prints, one after the other in one session, of the report in a folder."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    texts = []
    with pd.option_context("display.float_format", None):  # put back what the page sets
        for code, _ in BLOCKS:
            out = io.StringIO()
            with redirect_stdout(out):
                exec(compile(code, "docs/report-h5.md", "exec"), names)
            texts.append(out.getvalue())
    report = names["report"]
    assert isinstance(report, h5py.File)
    report.close()
    return texts


def test_the_page_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_h5(made_up_report(), tmp_path / "report.h5")
    texts = printed(tmp_path, monkeypatch)
    assert len(texts) >= 10
    for (code, said), text in zip(BLOCKS, texts, strict=True):
        assert [line.rstrip() for line in said.splitlines()] == [line.rstrip() for line in text.splitlines()], code


def test_its_groups_are_there(tmp_path: Path) -> None:
    write_h5(made_up_report(), tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5") as report:
        plots = re.findall(r"^\| `(/\S+)`.*? \| (.*?) \| (.*?) \|", DOC, re.MULTILINE)
        assert [path for path, _, _ in plots] == ["/plots/by_rank", "/plots/by_label", "/rows/layers.2.attn.out"]
        for path, signals, axes in plots:
            group = report[path]
            assert group.attrs["NX_class"] == b"NXdata"
            told = [group.attrs["signal"], *group.attrs.get("auxiliary_signals", [])]
            assert re.findall(r"`(\w+)`", signals) == [name.decode() for name in told]
            assert re.findall(r"`(\w+)`", axes) == [name.decode() for name in group.attrs["axes"]]
        assert (report.attrs["default"], report["plots"].attrs["default"]) == (b"plots", b"by_rank")
        for path in re.findall(r"`(/[a-z_/]+)`", DOC):
            assert path in report
