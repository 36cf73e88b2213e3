"""The pages are a site without a broken link, the reference is the code's, and the workflow of docs/ci.md runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.processes import PATIENCE
from tests.test_house import ROOT

CI = ROOT / "examples" / "ci"


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    options = ["-q", "-W", "--keep-going", "-c", str(ROOT / "docs"), "-d", str(tmp_path / "trees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "site" / "README.html").read_text()
    assert "docs/README.html" in first and "docs/reference.html" in first
    assert "README.html" in (tmp_path / "site" / "index.html").read_text()


def test_the_reference_is_made_from_the_code() -> None:
    made = subprocess.run([sys.executable, ROOT / "scripts" / "reference"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert made.stdout == (ROOT / "docs" / "reference.md").read_text(), "scripts/reference > docs/reference.md"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_page_on_ci_shows_the_files_of_the_example() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    (steps,), (policy,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("yaml", "toml"))
    assert steps in (CI / "workflow.yml").read_text()
    assert policy in (CI / "policy.toml").read_text()


@pytest.mark.ray
def test_the_workflow_runs(tmp_path: Path) -> None:
    """Its commands, in a folder with the example: green with the tolerance, red without it."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "ci").symlink_to(CI)
    steps = yaml.safe_load((CI / "workflow.yml").read_text())["jobs"]["compare"]["steps"]
    commands = {step["name"]: step["run"] for step in steps if "run" in step}
    assert list(commands) == ["Install", "Compare", "Page"] and commands["Install"].startswith("pip install ")
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-e", "-c", command], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PATIENCE
        )

    done = run(commands["Compare"])
    assert done.returncode == 0 and "All match: 4 labels on 1 rank" in done.stdout, done
    assert run(commands["Page"]).returncode == 0 and (tmp_path / "numerics" / "report.html").exists()
    strict = run(commands["Compare"].replace("--policy examples/ci/policy.toml --output numerics", "--output strict"))
    assert strict.returncode == 1, strict
    page = (ROOT / "docs" / "ci.md").read_text()
    table = re.findall(r"^  label .*?(?=^```)", page, re.DOTALL | re.MULTILINE)[0]
    assert table.strip() in strict.stdout.replace("\r", ""), strict.stdout
