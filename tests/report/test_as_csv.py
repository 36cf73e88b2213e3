"""report.csv: the original's columns first, frozen; one row per (label, rank); no formulas."""

import csv
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.report.as_csv import HEADER, write_csv
from tests.report.made_up import decoder_labels, label, report_of, side, verdict

FROZEN = (
    "data_id,pta_data_path,pta_dtype,pta_shape,pta_max_value,pta_min_value,pta_mean_value,"
    "acl_data_path,acl_dtype,acl_shape,acl_max_value,acl_min_value,acl_mean_value,cmp_flag,"
    "cosine_similarity,max_relative_error,mean_relative_error,relative_euclidean_distance,cmp_fail_reason,"
    "rank,task,seq,status,origin,reason,"
    "occurrence,bitwise,layout,rel_l2,worst_row,worst_row_index,max_abs,mean_abs,rms,linf_rel,max_ulp,pass_rate,"
    "mismatch_share,scale,residual,limit_warn,limit_fail,limit_source,margin,"
    "golden_device,golden_call_site,actual_device,actual_call_site,"
    "level,granularity,layer,parent,stats_basis,own_rel_l2,own_worst_row"
)


def written(labels: list[LabelVerdict], folder: Path) -> list[dict[str, str]]:
    write_csv(report_of(labels), folder / "report.csv")
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_columns_are_frozen(tmp_path: Path) -> None:
    assert ",".join(HEADER) == FROZEN
    write_csv(report_of([]), tmp_path / "report.csv")
    assert (tmp_path / "report.csv").read_text() == FROZEN + "\n"


def test_one_row_per_label_and_rank(tmp_path: Path) -> None:
    rows = written(decoder_labels(2, 3, ("layers.0.attn.k", 1)), tmp_path)
    assert len(rows) == 21 * 3
    row = next(row for row in rows if row["status"] == "diverged")
    assert (row["data_id"], row["rank"], row["origin"], row["seq"]) == ("layers.0.attn.k", "1", "own", "2")
    assert (row["cmp_flag"], row["cmp_fail_reason"], row["pta_shape"]) == ("True", "", "(6, 4)")
    assert float(row["pta_min_value"]) < float(row["pta_mean_value"]) < float(row["pta_max_value"])
    assert float(row["relative_euclidean_distance"]) == pytest.approx(float(row["rel_l2"]) ** 2)


def test_fail_reasons_are_the_originals(tmp_path: Path) -> None:
    no_golden = replace(verdict(0, Status.MISSING), golden=None, actual=side("acl"))
    dtype_class = replace(verdict(0, Status.MISMATCH), actual=side("acl"), reason="float32 against int64")
    held = [verdict(0, Status.MISSING), no_golden, verdict(0, Status.MISMATCH), dtype_class, verdict(0, Status.FAILED)]
    rows = written([label(str(i), [one]) for i, one in enumerate(held)], tmp_path)
    assert [row["cmp_fail_reason"] for row in rows] == [
        "acl_data_path is not exist.",
        "pta_data_path is not exist.",
        "data shape doesn't match.",
        "float32 against int64",
        "made up as failed",
    ]
    assert {row["cmp_flag"] for row in rows} == {"False"}
    assert {row["rel_l2"] + row["max_ulp"] + row["pta_max_value"] + row["margin"] for row in rows} == {""}


@pytest.mark.parametrize("name", ["\t=1", "\r=1", "\n=1", "\x1b[2J", "\x00", "\x9b2J", "\u202eevil"])
def test_no_cell_steers_a_terminal(name: str, tmp_path: Path) -> None:
    one = replace(verdict(0, Status.FAILED, Origin.OWN), reason=name)
    (row,) = written([label(name, [one])], tmp_path)
    assert row["data_id"] == row["reason"] == row["cmp_fail_reason"] == visible(name) != name
    assert (tmp_path / "report.csv").read_text().replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@SUM(A1)"])
def test_no_cell_is_a_formula(name: str, tmp_path: Path) -> None:
    one = replace(verdict(0, Status.FAILED, Origin.OWN), reason=name)
    (row,) = written([label(name, [one])], tmp_path)
    assert row["data_id"] == row["reason"] == row["cmp_fail_reason"] == f"'{name}"


def test_numbers_are_no_text(tmp_path: Path) -> None:
    one = verdict(0)
    assert one.metrics is not None
    one = replace(one, metrics=replace(one.metrics, cosine=-0.5, worst_row=nan))
    (row,) = written([label("x", [one])], tmp_path)
    assert row["cosine_similarity"] == "-0.5"
    assert row["worst_row"] == ""
    assert float(row["pta_min_value"]) < 0
