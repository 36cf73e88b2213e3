"""Names come from the user's script: whatever they hold, every report is valid, complete and harmless."""

import csv
import io
import json
import tempfile
import unicodedata
from pathlib import Path

import h5py
import jsonschema
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.verdicts import Origin, Status
from aclcmp.orchestrator.report.as_json import schema
from aclcmp.orchestrator.report.files import write_reports
from aclcmp.orchestrator.report.text.terminal import print_report
from aclcmp.orchestrator.run.directory import RunDir
from tests.report.made_up import label, report_of, verdict

NAMES = st.lists(st.text(max_size=200), min_size=1, max_size=12, unique=True)
NASTY = [
    "a/b=c\nd",
    "[red]x[/red]",
    "<script>",
    "\x1b[2J",
    "\u202egnp",
    "",
    "=1+1",
    "\x00",
    "\ud800",
    "..",
    "../x",
    "é" * 99,
]


@given(NAMES, st.sampled_from(Status))
@example(NASTY, Status.DIVERGED)
@example(list(reversed(NASTY)), Status.MATCH)
@settings(max_examples=30)
def test_any_name(names: list[str], status: Status) -> None:
    origin = Origin.OWN if status is Status.DIVERGED else None
    labels = [label(name, [verdict(0, status if i % 2 else Status.MATCH, origin)]) for i, name in enumerate(names)]
    report = report_of(labels, notes=tuple(names))
    out = io.StringIO()
    print_report(report, Console(file=out, width=90, highlight=False))
    assert {unicodedata.category(c) for c in out.getvalue()} & {"Cc", "Cf", "Cs", "Zl", "Zp"} <= {"Cc"}
    assert not any(unicodedata.category(c) == "Cc" for c in out.getvalue().replace("\n", ""))
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder), "x")
        write_reports(report, run)
        content = json.loads(run.report_json.read_text())
        jsonschema.validate(content, schema(), jsonschema.Draft202012Validator)
        assert [one["label"] for one in content["labels"]] == names
        kept = [_storable(name) for name in names]
        with h5py.File(run.report_h5) as file:
            assert [name.decode() for name in file["labels"]["label"]] == kept
            assert file["notes"].asstr()[:].tolist() == kept
        with run.report_csv.open(encoding="utf-8", newline="") as rows:
            assert [row["data_id"].removeprefix("'") for row in csv.DictReader(rows)] == [
                visible(name).removeprefix("'") for name in names
            ]


def _storable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
