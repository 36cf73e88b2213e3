"""Every ready file is valid, is in the README, and says what it should."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster.ray_start import HEALTH_CHECKS
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit.cluster_file import ClusterFileKind, read_cluster_file
from aclcmp.orchestrator.submit.kuberay.manifest import render
from aclcmp.orchestrator.submit.ray_up import check_launcher
from aclcmp.orchestrator.submit.submission import submission

FOLDER = Path(__file__).parents[2] / "cluster_configs"
FILES = sorted(FOLDER.glob("*.yaml"))
LAUNCHERS = ("two-npu-hosts.yaml", "cuda-hosts.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_valid(path: Path) -> None:
    cluster = read_cluster_file(path)
    job = submission(cluster.section, "aclcmp-1", path.parent)
    assert "--output" in job.entrypoint
    if cluster.kind is ClusterFileKind.LAUNCHER:
        check_launcher(path, cluster.body)
    elif cluster.kind is ClusterFileKind.KUBERAY:
        assert "kind: RayJob" in render(cluster)
    else:
        assert cluster.address is not None and cluster.address.startswith("http://127.0.0.1:")


def test_the_readme_says_which_for_whom() -> None:
    text = (FOLDER / "README.md").read_text()
    assert set(re.findall(r"^\| \[([\w.-]+)\]", text, re.MULTILINE)) == {path.name for path in FILES}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_hosts_are_started_safely(name: str) -> None:
    body = read_cluster_file(FOLDER / name).body
    (head,), (worker,) = body["head_start_ray_commands"], body["worker_start_ray_commands"]
    for command in (head, worker):
        assert "ray stop" not in command and "RAY_AUTH_MODE=token" in command and "\n" not in command
    for variable, value in HEALTH_CHECKS.items():
        assert f"{variable}={value} " in head
    assert f"--dashboard-host={body['provider']['head_ip']} " in head and "0.0.0.0" not in head


@pytest.mark.parametrize("name", ["existing.yaml", "local-two-nodes.yaml"])
def test_the_example_is_there_and_its_environment_is_not_uploaded(name: str) -> None:
    cluster = read_cluster_file(FOLDER / name)
    job = submission(cluster.section, "aclcmp-1", FOLDER)
    assert job.working_dir is not None
    script = cluster.section.exec.split()[1]
    assert (job.working_dir / script).is_file() and {".venv/", ".git/", "aclcmp-runs/"} <= set(job.excludes)


def test_a_launcher_file_that_ray_would_refuse(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text((FOLDER / LAUNCHERS[0]).read_text() + "surprise: 1\n")
    with pytest.raises(UsageError, match="surprise"):
        check_launcher(path, read_cluster_file(path).body)
    path.write_text("cluster_name: x\nprovider: {type: local}\nmetadata: {aclcmp: {exec: x}}\n")
    with pytest.raises(UsageError, match="head_ip"):
        check_launcher(path, read_cluster_file(path).body)


def test_the_script_is_sound() -> None:
    script = FOLDER / "local-two-nodes.sh"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "ray stop" not in text and all(f"{name}={value}" in text for name, value in HEALTH_CHECKS.items())
    assert subprocess.run([script], capture_output=True, text=True).returncode == 2


@pytest.mark.parametrize("word", ["start", "stop"])
def test_the_script_takes_no_folder_of_somebody_else(tmp_path: Path, word: str) -> None:
    """A link stands for it: whoever makes it beforehand chooses the token and the processes that are ended."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/token").write_text("known")
    (tmp_path / "trial").symlink_to(tmp_path / "theirs")
    command, environ = (
        [str(FOLDER / "local-two-nodes.sh"), word],
        {**os.environ, "ACLCMP_TRIAL": str(tmp_path / "trial")},
    )
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 1 and "set ACLCMP_TRIAL" in done.stderr and done.stdout == "", done
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["token"]
