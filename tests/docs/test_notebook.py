"""docs/notebook.md is true: its lines run one after the other and print what the page says; so does the README's."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_house import ROOT

DOC = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", DOC, re.DOTALL)
IN_PYTEST = re.findall(r"```python\n(def test_.*?)```", DOC, re.DOTALL)
README = re.findall(r"### In a notebook or a test\n+```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_blocks_print_what_the_page_says() -> None:
    names: dict[str, Any] = {}
    assert len(BLOCKS) == 5 and len(BLOCKS) + len(IN_PYTEST) == DOC.count("```python")
    for code, expected in BLOCKS:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(code, "docs/notebook.md", "exec"), names)
        assert printed.getvalue() == expected


@pytest.mark.model
def test_the_readme_and_the_test_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    import aclcmp

    model = torch.nn.Linear(8, 4)
    names = {"golden_model": model, "actual_model": torch.nn.Linear(8, 4), "x": torch.ones(2, 8), "aclcmp": aclcmp}
    names["actual_model"].load_state_dict(model.state_dict())
    exec(compile(README[0], "README.md", "exec"), names)
    assert names["run"].compare()
    exec(compile(IN_PYTEST[0], "docs/notebook.md", "exec"), names)
    with aclcmp.record() as run:
        names["test_the_port"](run)
    assert run.compare() and np.isfinite(run.compare().labels[0].rel_l2)
