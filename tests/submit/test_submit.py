"""Submission to a real cluster with a token: exit codes, logs, Ctrl-C, stop, detach, attach, what is fetched."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes import PATIENCE, as_in_a_terminal, living, wait_until
from tests.recorded import read_report
from tests.submit.client import Laptop
from tests.submit.cluster import OwnCluster, own_cluster

pytestmark = [pytest.mark.submit, pytest.mark.ray]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnCluster]:
    with own_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(scope="module")
def laptop(cluster: OwnCluster, tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    return Laptop.at(tmp_path_factory.mktemp("lap") / "with blank", cluster.environ, cluster.url)


@pytest.fixture(scope="module")
def faulty(laptop: Laptop) -> str:
    """The id of a job that ended with a divergence and whose report is here."""
    done = laptop.run("submit", "job.yaml", "--exec", "python model.py fault")
    assert done.code == 1, done
    assert "[rank0] fault here 8" in done.out and "First divergence: layers.1.act" in done.out, done
    assert "hushhush" not in done.out + done.err and laptop.environ["RAY_AUTH_TOKEN"] not in done.out + done.err
    return job_id(done.err)


def job_id(text: str) -> str:
    found = re.search(r"Submitted (aclcmp-[0-9a-f-]+) to", text)
    assert found is not None, text
    return found[1]


def run_dir(cluster: OwnCluster, job: str) -> Path:
    return cluster.home / "aclcmp-runs" / job


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_report_comes_back(cluster: OwnCluster, laptop: Laptop, faulty: str) -> None:
    here, there = contents(laptop.folder / "aclcmp-runs" / faulty), contents(run_dir(cluster, faulty))
    assert {"run.json", "report.json", "report.h5", "report.csv", "logs/rank00000.log"} <= here.keys()
    assert not any(name.startswith("shards") for name in here)
    assert all(there[name] == content for name, content in here.items())
    assert json.loads(here["report.json"])["first_divergence"]["label"] == "layers.1.act"
    assert b"hushhush" not in b"".join(here.values())
    assert laptop.run("report", f"aclcmp-runs/{faulty}").code == 0
    state = (laptop.folder / "state/aclcmp/jobs.json").read_text()
    assert faulty in state and "hush" not in state and laptop.environ["RAY_AUTH_TOKEN"] not in state


def test_detached_and_attached_to_its_end(laptop: Laptop) -> None:
    done = laptop.run("submit", "job.yaml", "--detach", "--output", "mine")
    job = job_id(done.err)
    assert done.code == 0 and f"aclcmp attach {job}" in done.err and f"aclcmp stop {job}" in done.err, done
    done = laptop.run("attach", job)
    assert done.code == 0 and "All match" in done.out and "Running entrypoint" in done.out, done
    assert (laptop.folder / "mine/report.json").exists()


def test_a_rank_that_fails(laptop: Laptop) -> None:
    done = laptop.run("submit", "job.yaml", "--exec", "python model.py crash")
    assert done.code == 3 and re.search("rank 1 .* exited with code 7", done.out), done


def test_what_the_cluster_refuses_is_told(laptop: Laptop) -> None:
    done = laptop.run("submit", "job.yaml", "--exec", "no-such-command")
    assert done.code == 2 and "no-such-command: command not found" in done.out and "Fetched" not in done.err, done


def test_shards_are_fetched_and_resumed(cluster: OwnCluster, laptop: Laptop, faulty: str) -> None:
    there = contents(run_dir(cluster, faulty))
    target = laptop.folder / "shards here"
    (target / "shards").mkdir(parents=True)
    segments = sorted(name for name in there if name.endswith(".h5") and name.startswith("shards/"))
    assert len(there[segments[0]]) > 500_000
    (target / (segments[0] + ".part")).write_bytes(there[segments[0]][:300_001])  # broken off
    (target / (segments[1] + ".part")).write_bytes(b"x" * 300_001)  # damaged
    (target / "run.json").write_bytes(there["run.json"].replace(b"0", b"1"))  # another one
    elsewhere = Laptop(laptop.folder, {**laptop.environ, "XDG_STATE_HOME": str(laptop.folder / "other")})
    wanted = ("fetch", faulty, "--shards", "--output", target)
    assert "give --address" in elsewhere.run(*wanted).err
    done = elsewhere.run(*wanted, "--address", cluster.url)
    assert done.code == 0 and done.err.count("fetched anew") == 2, done
    here = contents(target)
    assert all(there[name] == content for name, content in here.items()) and set(segments) <= here.keys()
    assert [path for path in target.rglob("*.part")] == []
    senders = [path for path in cluster.temp.rglob("job-driver-aclcmp-*.log") if "send-files" in path.read_text()[:400]]
    assert senders == []  # each emptied its log


def test_tokens(laptop: Laptop) -> None:
    for environ, words in (
        ({"RAY_AUTH_TOKEN": None, "RAY_AUTH_MODE": None}, "wants a token, and there is none here"),
        ({"RAY_AUTH_TOKEN": "0" * 64, "RAY_AUTH_MODE": None}, "does not accept the token from RAY_AUTH_TOKEN"),
        ({"RAY_AUTH_MODE": "disabled"}, "wants a token, and RAY_AUTH_MODE=disabled here"),
    ):
        done = laptop.run("submit", "job.yaml", **environ)
        assert done.code == 2 and words in done.err and done.err.count("\n") == 1 and done.out == "", done
    path = laptop.folder / "token file"
    path.write_text(laptop.environ["RAY_AUTH_TOKEN"])
    done = laptop.run("jobs", RAY_AUTH_TOKEN=None, RAY_AUTH_MODE=None, RAY_AUTH_TOKEN_PATH=str(path))
    assert done.code == 0, done
    # what would count instead of the address, for Ray's own client
    assert laptop.run("jobs", RAY_ADDRESS="http://127.0.0.1:1").code == 0


def test_ctrl_c(cluster: OwnCluster, laptop: Laptop) -> None:
    with laptop.terminal("submit", "job.yaml", "--exec", "python model.py hang") as terminal:
        terminal.wait_for(r"tick 3\b")
        assert _ranks(cluster)  # or it would say nothing that there are none later
        job = job_id(terminal.text)
        terminal.type("\x03")
        terminal.wait_for(r"\[s\]top it, or \[d\]etach")
        terminal.type("\n")  # go on watching
        terminal.wait_for(r"tick \d+")
        terminal.type("\x03")
        terminal.wait_for(r"\[s\]top")
        terminal.type("\x03")  # once more: leave it
        assert terminal.exit_code() == 4 and "runs on" in terminal.text

    process = subprocess.Popen(  # no terminal: it leaves the job running, and says so
        laptop.command("attach", job), cwd=laptop.folder, env=dict(laptop.environ), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal,
    )  # fmt: skip
    assert process.stdout is not None
    next(line for line in process.stdout if "tick 2" in line)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4 and f"aclcmp stop {job}" in said
    assert re.search(f"{job} +running", laptop.run("jobs").out)

    with laptop.terminal("attach", job) as terminal:
        terminal.wait_for("tick 2")
        terminal.type("\x03")
        terminal.wait_for(r"\[s\]top")
        terminal.type("s\n")
        assert terminal.exit_code() == 3 and "stopped" in terminal.text
    wait_until(lambda: not _ranks(cluster), lambda: _ranks(cluster))
    assert laptop.run("fetch", job, "--output", "stopped").code == 0
    report = read_report(laptop.folder / "stopped")
    assert [label["status"] for label in report["labels"]] == ["match"] * 3  # it had the time to compare
    assert re.search(f"{job} +stopped", laptop.run("jobs", "job.yaml").out)
    assert "was over already (stopped)" in laptop.run("stop", job).err


def test_stop_from_elsewhere_ends_who_follows(cluster: OwnCluster, laptop: Laptop) -> None:
    with laptop.terminal("submit", "job.yaml", "--exec", "sleep 600") as terminal:
        terminal.wait_for("Running entrypoint")
        job = job_id(terminal.text)
        done = laptop.run("stop", job, "--address", cluster.url)
        assert done.code == 0 and f"{job} stopped" in done.err, done
        assert terminal.exit_code() == 3


def test_other_people_s_jobs(cluster: OwnCluster, laptop: Laptop) -> None:
    done = laptop.run("stop", "aclcmp-none", "--address", cluster.url)
    assert done.code == 2 and "no job aclcmp-none at" in done.err
    assert "is neither a run directory nor a job's id" in laptop.run("fetch", "no/such").err


def _ranks(cluster: OwnCluster) -> list[psutil.Process]:
    """Ranks of this cluster that still run."""
    return living(
        lambda each: each.cmdline()[-2:] == ["model.py", "hang"] and each.environ()["HOME"] == str(cluster.home)
    )
