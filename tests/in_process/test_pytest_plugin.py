"""The fixture `aclcmp_run` in a pytest of its own."""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import AssertionRewriter

PLUGIN = "aclcmp.orchestrator.in_process.pytest_plugin"
TESTS = """
import numpy as np, pytest
from aclcmp import set_label

X = np.ones((4, 8), np.float32)

def label(actual):
    set_label("golden", "layers.0.mlp", X)
    set_label("actual", "layers.0.mlp", actual)

def test_right(aclcmp_run):
    label(X)

def test_wrong(aclcmp_run):
    label(X * 2)

def test_half(aclcmp_run):
    set_label("golden", "x", X)

def test_nothing(aclcmp_run):
    pass

def test_own_comparison(aclcmp_run):
    label(X * 2)
    assert aclcmp_run.compare().verdict == "diverged"

def test_own_failure(aclcmp_run):
    label(X * 2)
    raise ValueError("of the test")

@pytest.mark.xfail(strict=True)
def test_known(aclcmp_run):
    label(X * 2)

def test_skipped(aclcmp_run):
    pytest.skip("not today")

def test_without():
    label(X * 2)
"""


def run_pytest(folder: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    installed = any(each.name == "aclcmp" for each in entry_points(group="pytest11"))
    named = [] if installed else ["-p", PLUGIN]
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *named, *options, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment})


def test_tests_fail_unless_their_labels_match(tmp_path: Path) -> None:
    (tmp_path / "test_labels.py").write_text(TESTS)
    (tmp_path / "left").mkdir()
    done = run_pytest(tmp_path, "-rA", TMPDIR=str(tmp_path / "left"))
    found = {name: outcome for outcome, name in re.findall(r"^([A-Z]+) \S*::(\w+)", done.stdout, re.MULTILINE)}
    assert found == {
        "test_right": "PASSED",
        "test_wrong": "FAILED",
        "test_half": "FAILED",
        "test_nothing": "FAILED",
        "test_own_comparison": "PASSED",
        "test_own_failure": "FAILED",
        "test_known": "XFAIL",
        "test_without": "PASSED",
    }, done.stdout
    assert "the labels of the test do not match: diverged" in done.stdout
    assert "First divergence: layers.0.mlp" in done.stdout
    assert "pytest_plugin.py" not in done.stdout.partition("short test summary")[0].replace(PLUGIN, "")
    assert "1 skipped" in done.stdout and "error" not in done.stdout.splitlines()[-1]
    assert not list((tmp_path / "left").iterdir())


def test_the_plugin_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "test_loaded.py").write_text(
        "import sys\ndef test_it():\n    assert not {'numpy', 'h5py', 'aclcmp.labeling'} & sys.modules.keys()\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_fixture_is_listed(tmp_path: Path) -> None:
    assert "aclcmp_run" in run_pytest(tmp_path, "--fixtures").stdout


def test_a_process_that_imported_aclcmp_before_runs_pytest_without_a_warning() -> None:
    import aclcmp

    assert AssertionRewriter.is_rewrite_disabled(aclcmp.__doc__ or "")  # what pytest asks about plug-ins


def test_the_entry_point_is_the_plugin() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'[project.entry-points.pytest11]\naclcmp = "{PLUGIN}"\n' in text
    assert pytest.importorskip(PLUGIN).aclcmp_run
