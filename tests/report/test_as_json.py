"""report.json: its beginning, its schema, numbers that JSON lacks, its size."""

import json
from dataclasses import fields, replace
from math import inf, nan
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.report import SCHEMA, Report
from aclcmp.orchestrator.core.run_record import Failure
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import Origin, Status
from aclcmp.orchestrator.report.as_json import number, schema, write_json
from tests.report.made_up import decoder_labels, label, record_of, report_of, stats_of, verdict

CULPRIT = ("layers.2.mlp.down.local", 5)


def written(report: Report, folder: Path) -> dict:
    path = folder / "report.json"
    write_json(report, path)
    content = json.loads(path.read_text(encoding="ascii"), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    jsonschema.validate(content, schema(), jsonschema.Draft202012Validator)
    return content


def test_it_begins_as_promised(tmp_path: Path) -> None:
    report = report_of(decoder_labels(4, 8, CULPRIT), run=record_of(8), notes=("layout of x was inferred",))
    content = written(report, tmp_path)
    assert list(content) == [
        *("schema", "verdict", "exit_code", "first_divergence", "labels", "coverage"),
        *("run", "policy", "replicas", "patterns", "hints", "first_by_rank", "notes", "order", "paths"),
    ]
    assert content["schema"] == SCHEMA
    assert (content["verdict"], content["exit_code"]) == ("diverged", 1)
    first = content["first_divergence"]
    assert list(first)[:4] == ["task", "label", "ranks", "origin"]
    assert (first["task"], first["label"], first["ranks"], first["origin"]) == (0, CULPRIT[0], [5], "own")
    one = next(one for one in content["labels"] if one["label"] == CULPRIT[0])
    assert list(one) == [
        *("task", "label", "occurrence", "status"),
        *("level", "granularity", "layer", "parent", "root", "ranks"),
    ]
    assert list(one["ranks"]) == [str(rank) for rank in range(8)]
    assert one["ranks"]["5"]["status"] == "diverged"
    assert one["ranks"]["5"]["golden"]["shape"] == [6, 4]
    assert content["coverage"]["compared"] == 39 * 8
    assert content["run"]["command"] == ["python", "run.py", "--prompt", "hello"]
    assert content["first_by_rank"]["5"]["label"] == CULPRIT[0]
    assert content["notes"] == ["layout of x was inferred"]


def test_every_status_is_valid(tmp_path: Path) -> None:
    labels = [label(status.value, [verdict(0, status, origin)]) for status in Status for origin in [None, *Origin]]
    failure = Failure(rank=0, what="rank 0 exited with code 1", last_lines=("x",))
    content = written(report_of(labels, run=record_of(1, failure), silent=(3,)), tmp_path)
    assert [one["status"] for one in content["labels"]] == [s.value for s in Status for _ in range(3)]
    assert content["coverage"]["silent_ranks"] == [3]


def test_no_run_and_no_label(tmp_path: Path) -> None:
    content = written(report_of([]), tmp_path)
    assert content["labels"] == []
    assert content["first_divergence"] is None
    assert content["run"] == {"run_id": "20261122-101500"}
    assert content["exit_code"] == 4


def test_nan_and_infinity(tmp_path: Path) -> None:
    nothing_finite = stats_of(np.full((2, 3), nan), np.ones((2, 3)))
    odd = verdict(0, Status.NONFINITE, Origin.OWN)
    assert odd.metrics is not None
    odd = replace(odd, stats=nothing_finite, metrics=replace(odd.metrics, rel_l2=inf, cosine=nan), margin=inf)
    rank = written(report_of([label("x", [odd])]), tmp_path)["labels"][0]["ranks"]["0"]
    assert (rank["metrics"]["rel_l2"], rank["metrics"]["cosine"], rank["margin"]) == ("inf", None, "inf")
    assert (rank["stats"]["min_x"], rank["stats"]["max_x"], rank["stats"]["nan_x"]) == ("inf", "-inf", 6)
    assert number(1.5) == 1.5


def test_the_schema_names_every_fact() -> None:
    """A new field of the data needs a new line in the shipped schema."""
    definitions = schema()["$defs"]
    assert schema()["properties"]["schema"] == {"const": SCHEMA}
    assert list(definitions["metrics"]["properties"]) == [f.name for f in fields(Metrics)]
    assert list(definitions["stats"]["properties"]) == [
        f.name for f in fields(PairStats) if f.name not in ("rows", "choices")
    ]
    assert list(definitions["side"]["anyOf"][1]["properties"]) == [f.name for f in fields(SideFacts)]
    assert definitions["status"]["enum"] == [status.value for status in Status]
    jsonschema.Draft202012Validator.check_schema(schema())


def test_one_label_per_line(tmp_path: Path) -> None:
    """The file can be searched and read line by line, however many labels there are."""
    write_json(report_of(decoder_labels(32, 2)), tmp_path / "report.json")
    lines = (tmp_path / "report.json").read_text().splitlines()
    labels = [json.loads(line.rstrip(",")) for line in lines if line.startswith("  {")]
    assert len(labels) == 291
    assert len(lines) <= 291 + 16
