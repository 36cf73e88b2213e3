"""The folder of a case: its name, its README, its script, and what it refuses."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.case import formulas, script
from aclcmp.orchestrator.case.folder import Case, as_code, folder_name, script_text, write_case
from aclcmp.orchestrator.case.label_rows import StoredTensor
from aclcmp.orchestrator.errors import UsageError

HOSTILE = "../../etc/`# x\n![a](b) <script>\x1b[31m|'\"$(rm)\u202e"
ROWS = StoredTensor(np.ones((1, 4), np.float32), "float32")
CASE = Case(
    HOSTILE, 3, [HOSTILE], [HOSTILE], [2.0], 0.5, 1e-5, formulas.linear,
    {name: ROWS for name in ("golden.output", "actual.output", "golden.input.0", "actual.input.0")}
    | {"parameter.weight": StoredTensor(np.eye(4, dtype=np.float32), "float32")},
    [0], ["A note."],
)  # fmt: skip


@given(st.text())
def test_no_label_leaves_the_folder(label: str) -> None:
    name = folder_name(label)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*-case|label-case|[A-Za-z0-9_][A-Za-z0-9._-]*-case", name), name
    assert Path(name).name == name and len(name) < 200


@given(st.text(st.sampled_from("a`|<*[\n")))
def test_text_in_a_readme_is_no_markup(text: str) -> None:
    shown = as_code(text)
    ticks = re.match("`+", shown)
    assert ticks is not None and "\n" not in shown
    assert shown[len(ticks[0]) : -len(ticks[0])].count(ticks[0]) == 0


@pytest.mark.parametrize(
    "formula", [each for each in vars(formulas).values() if getattr(each, "__module__", "") == formulas.__name__]
)
def test_the_script_has_the_formula_and_nothing_of_the_label(formula: object) -> None:
    assert callable(formula)
    text = script_text(formula)
    compile(text, "case.py", "exec")
    assert "raise NotImplementedError" not in text and text.count("def compute(") == 1
    assert "import math" in text or "math." not in text
    assert "aclcmp" not in text
    assert "PUT THE CALL OF YOUR MODULE HERE" in script_text(None) and "raise NotImplementedError" in script_text(None)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    with pytest.raises(UsageError, match=r"most of it parameter.weight; --max-size 1 allows that"):
        write_case(CASE, folder, 10)
    assert list(tmp_path.iterdir()) == []
    write_case(CASE, folder, 1 << 20)
    assert sorted(each.name for each in folder.iterdir()) == ["README.md", "case.py", "case.safetensors"]
    assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(UsageError, match="exists; choose another folder with --output"):
        write_case(CASE, folder, 1 << 20)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write_case(CASE, tmp_path / "file" / "case", 1 << 20)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    weight = StoredTensor(np.array([[1, 2]], "<u2"), "bfloat16")
    case = replace(
        CASE, formula=None, tensors={**CASE.tensors, "parameter.weight": weight, "parameter.eps": scalar(1e-5)}
    )
    write_case(case, tmp_path / "case", 1 << 20)
    facts, tensors = script.load(tmp_path / "case" / "case.safetensors")
    assert facts["rank"] == 3 and "\x1b" not in facts["label"] and "\n" not in facts["tokens"][0]
    assert str(tensors["parameter.weight"].dtype) == "torch.bfloat16" and tensors["parameter.weight"].shape == (1, 2)
    assert float(tensors["parameter.eps"]) == 1e-5
    readme = (tmp_path / "case" / "README.md").read_text()
    assert "\x1b" not in readme and "\u202e" not in readme and "confirm own" in readme


def scalar(value: float) -> StoredTensor:
    return StoredTensor(np.array(value), "float64")
