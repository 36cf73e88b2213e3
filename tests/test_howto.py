"""The pages of docs/howto are true: what each of them writes, made in a copy of the tree, passes the page's own check.

A page holds blocks of these forms:

- ```python title="path/of/new_file.py"``` is a new file, named from the root of the repository;
- ```diff``` edits existing files, as `git apply --recount` takes it: hunks find their place by their context, of which
  one line before and one after should be unlikely to change;
- ```python title="check.py"```, the last one, asserts that the new thing works from end to end.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "howto").glob("*.md"))
PRODUCT = ("aclcmp", "labeling", "orchestrator")
MOST_FILES = 3
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def copy_tree(target: Path) -> None:
    """Copy the product and the docs, without what git ignores; links stay links."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard", "--", *PRODUCT, "docs"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().rstrip("\0").split("\0"):
        if os.path.lexists(ROOT / name):  # a file may be deleted and not yet staged
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def apply_diff(diff: str, tree: Path) -> list[str]:
    """Apply a unified diff; return the files that it edits."""
    environ = os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)}
    applied = subprocess.run(
        ["git", "apply", "--recount", "-C1", "-"], cwd=tree, env=environ, input=diff, text=True, capture_output=True
    )
    assert applied.returncode == 0, f"{applied.stderr}\n{diff}"
    return re.findall(r"^\+\+\+ b/(\S+)$", diff, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_works(page: Path, tmp_path: Path) -> None:
    copy_tree(tmp_path)
    touched: set[str] = set()
    blocks = _BLOCK.findall(page.read_text(encoding="utf-8"))
    for language, title, text in blocks:
        if title:
            touched.add(title)
            (tmp_path / title).parent.mkdir(parents=True, exist_ok=True)
            assert not (tmp_path / title).exists(), f"{title} exists: its edit is a diff"
            (tmp_path / title).write_text(text, encoding="utf-8")
        elif language == "diff":
            touched |= set(apply_diff(text, tmp_path))
    product = {name for name in touched if name.split("/")[0] in PRODUCT}
    assert 0 < len(product) <= MOST_FILES, product
    assert blocks[-1][1] == "check.py"
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    checked = subprocess.run(
        [sys.executable, "check.py"], cwd=tmp_path, env=environ, text=True, capture_output=True, timeout=PATIENCE
    )
    assert checked.returncode == 0, checked.stderr
