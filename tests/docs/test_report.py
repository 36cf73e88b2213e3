"""docs/report.md is true: its snippet runs, its sample is what is printed, it names every figure and status."""

import io
import re
from contextlib import redirect_stdout
from dataclasses import fields
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.report.files import write_reports
from aclcmp.orchestrator.report.text.columns import mark
from aclcmp.orchestrator.run.directory import RunDir
from tests.report.made_up import decoder_labels, report_of
from tests.report.text.test_terminal import GOLDEN

DOC = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")


def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reports(report_of(decoder_labels(4, 8, ("layers.2.mlp.down.local", 5))), RunDir(tmp_path, "x"))
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    out = io.StringIO()
    names: dict[str, object] = {}
    with redirect_stdout(out):
        exec(compile(snippet, "docs/report.md", "exec"), names)
    assert "diverged" in out.getvalue()
    assert re.search(r"layers\.2\.mlp\.down\.local +5 +diverged", out.getvalue())
    assert getattr(names["tokens"], "shape", None) == (1, 6)


def test_the_sample_is_real() -> None:
    assert GOLDEN.partition("\n\n")[0] in DOC


def test_it_names_everything() -> None:
    for status in Status:
        assert f"| `{mark(status, False).plain}` | `{mark(status, True).plain}` | {status.value} |" in DOC
    for field in fields(Metrics):
        assert f"`{field.name}`" in DOC
    for code in ExitCode:
        assert f"| {code.value} |" in DOC
    for _, link in re.findall(r"\[(.*?)\]\((.*?)\)", DOC):
        assert (Path(__file__).parents[2] / "docs" / link).exists()
