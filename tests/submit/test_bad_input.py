"""Wrong input to the submitting commands: one clear line, exit code 2, nothing left behind; what --dry-run shows."""

import re
from pathlib import Path

import pytest

from aclcmp.orchestrator.cli.app import run_cli
from aclcmp.orchestrator.submit.state import KnownJob, remember
from tests.cli.conftest import Command, Done, assert_one_line

OWN = "address: http://127.0.0.1:1\naclcmp: {exec: python x.py, ranks: 2, env: {HF_TOKEN: hush, A: b}}\n"


@pytest.fixture
def aclcmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `aclcmp ARGUMENTS` in this process, which none of these takes beyond it, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments: str) -> Done:
        code = run_cli(arguments)
        return Done(code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit"], "FILE"),
        (["submit", "none.yaml"], "No such file"),
        (["submit", "own.yaml", "--rank", "3"], "--ranks"),
        (["submit", "own.yaml", "--ranks", "0"], "aclcmp.ranks"),
        (["submit", "own.yaml", "--env", "NOVALUE"], "NAME=VALUE"),
        (["submit", "own.yaml", "--env", "CUDA_VISIBLE_DEVICES=0"], "cannot be overridden"),
        (["submit", "own.yaml", "--working-dir", "none"], "is no folder here"),
        (["submit", "own.yaml", "--address", "127.0.0.1:6379"], "http://127.0.0.1:8265"),
        (["submit", "own.yaml"], "no job server answers at http://127.0.0.1:1"),
        (["submit", "own.yaml", "--up"], "--up is for cluster-launcher files"),
        (["submit", "own.yaml", "--render"], "--render is for KubeRay manifests"),
        (["submit", "own.yaml", "--output", "full"], "is not empty"),
        (["attach", "aclcmp-1"], "was not submitted from here; give --address"),
        (["stop", "aclcmp-1", "--address", "http://127.0.0.1:1"], "no job server answers"),
        (["fetch", "aclcmp-1"], "was not submitted from here"),
        (["fetch", "no/such/run"], "neither a run directory nor a job's id"),
        (["fetch", "full"], "run.json"),
        (["fetch", "full", "--output", "x"], "--output belongs to a job's id"),
        (["jobs", "--address", "nonsense"], "is not the URL of a job server"),
        (["send-files", ".", "x"], "no request for files"),
    ],
)
def test_one_line_and_code_2(aclcmp: Command, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert_one_line(aclcmp(*arguments), words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "own.yaml"]


def test_dry_run_shows_no_secret(aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    done = aclcmp("submit", "own.yaml", "--dry-run", "--ranks", "4", "--env", "MY_KEY=hush", "--env", "B=c d")
    assert done.code == 0 and "hush" not in done.out + done.err, done
    assert "--ranks 4" in done.out and "--env A=b --env 'B=c d'" in done.out
    assert "HF_TOKEN=(hidden) MY_KEY=(hidden)" in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


@pytest.mark.parametrize("target", ["aclcmp-1", "runs/aclcmp-1"])
def test_a_job_whose_report_is_here_is_still_a_job(aclcmp: Command, tmp_path: Path, target: str) -> None:
    folder = tmp_path / target
    folder.mkdir(parents=True)
    remember(KnownJob(job_id="aclcmp-1", address="http://127.0.0.1:1", file="f", output=str(folder), submitted=1.0))
    assert "no job server answers at http://127.0.0.1:1" in aclcmp("fetch", target, "--shards").err


def test_no_jobs(aclcmp: Command) -> None:
    done = aclcmp("jobs")
    assert done.code == 0 and "No jobs were submitted from here" in done.out


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "submit",
            "address detach device dry-run env exec fetch nodes output ranks render timeout up working-dir",
        ),
        ("attach", "address output"),
        ("stop", "address"),
        ("jobs", "address"),
        ("fetch", "address all output shards"),
    ],
)
def test_options_are_frozen(aclcmp: Command, command: str, options: str) -> None:
    found = re.findall(r"^\s+--([a-z-]+)", aclcmp(command, "--help").out, re.MULTILINE)
    assert sorted(set(found) - {"help"}) == options.split()
