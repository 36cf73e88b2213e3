"""Two real hosts: neither sees the other's files, so slices of golden tensors travel, and every label is compared.

Their runs are compared again, with and without the other host, fetched, and compared alone; one run lies in a folder
that both see. In the end one host is lost.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.netns import Done, Host, hosts, ray_on, start_ray
from tests.processes import PATIENCE, as_in_a_terminal, command_of, kill, living, wait_until
from tests.recorded import read_report

pytestmark = pytest.mark.netns

SCRIPT = """
import os, sys
import numpy as np
from aclcmp import set_label

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
fault = int(sys.argv[1]) if len(sys.argv) > 1 else -1
random = np.random.default_rng(0)
for layer in range(6):
    whole = random.standard_normal((48, 16 * world)).astype(np.float32)
    local = np.split(whole, world, axis=1)[rank].copy()
    if rank == fault and layer >= 3:
        local[5] *= 2
    if rank == 0:
        set_label("golden", f"layers.{layer}.mlp", whole)
    set_label("actual", f"layers.{layer}.mlp", local)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Two hosts with a Ray over both, and the script on each."""
    with hosts(tmp_path_factory.mktemp("hosts")) as made, ray_on(made):
        for host in made:
            (host.files / "model.py").write_text(SCRIPT)
        yield made


def run(two: list[Host], output: str, *arguments: str) -> tuple[int, dict, str]:
    """Run the script on four ranks over both hosts; return the exit code, the report, and what was printed."""
    script = " ".join((sys.executable, "model.py", *arguments))
    options = ("--ranks", "4", "--nodes", "2", "--address", f"{two[0].ip}:6379", "--output", output)
    done = two[0].run(sys.executable, "-m", "aclcmp", "--exec", script, *options)
    report = two[0].files / output / "report.json"
    assert report.exists(), done
    return done.code, json.loads(report.read_text()), f"{done.out}\n{done.err}"


def again(host: Host, *arguments: str | Path) -> Done:
    return host.run(sys.executable, "-m", "aclcmp", *arguments)


def fetch(host: Host, output: str, what: str = "--shards") -> Done:
    return again(host, "fetch", output, what)


def files_in(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the reports, by their names in it."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith("report.")}


def report_of(host: Host, output: str) -> dict:
    return read_report(host.files / output)


def shards(host: Host, output: str) -> list[str]:
    return sorted(path.name for path in (host.files / output / "shards").glob("*.h5"))


def test_hosts_are_hosts(two: list[Host]) -> None:
    a, b = two
    assert [host.run("hostname").out.strip() for host in two] == ["acl-a", "acl-b"]
    (a.files / "only-a").write_text("a")
    assert a.run("cat", "only-a").out == "a" and b.run("cat", "only-a").code != 0
    assert not list(Path(a.work).iterdir())  # neither does this process see them there
    ask = "import socket; socket.create_connection(('10.77.0.2', 22), timeout=60)"
    assert "refused" in a.run(sys.executable, "-c", ask).err  # it is reached
    nodes = "import ray; ray.init('auto', log_to_driver=False); print(len(ray.nodes()))"
    assert b.run(sys.executable, "-c", nodes).out.strip() == "2"


def test_golden_on_one_host_is_compared_on_both(two: list[Host]) -> None:
    code, report, printed = run(two, "good")
    assert shards(two[0], "good") == ["rank00000.h5", "rank00001.h5"]
    assert shards(two[1], "good") == ["rank00002.h5", "rank00003.h5"]
    assert code == 0, printed
    assert report["verdict"] == "match" and report["coverage"]["compared"] == 24
    assert all(label["status"] == "match" and set(label["ranks"]) == set("0123") for label in report["labels"])


@pytest.fixture(scope="module")
def bad(two: list[Host]) -> dict:
    """The report of a run whose rank 3, on the second host, is wrong."""
    code, report, printed = run(two, "bad", "3")
    assert code == 1, printed
    return report


def test_a_fault_on_the_other_host_is_found(bad: dict) -> None:
    assert bad["coverage"]["compared"] == 24
    assert bad["first_divergence"]["ranks"] == [3] and bad["first_divergence"]["label"] == "layers.3.mlp"


def test_a_run_is_followed_on_both_hosts(two: list[Host]) -> None:
    slow = SCRIPT.replace("range(6)", "range(600)") + "    import time; time.sleep(0.2)\n"
    for host in two:
        (host.files / "slow.py").write_text(slow)
    options = ("--ranks", "4", "--nodes", "2", "--address", f"{two[0].ip}:6379", "--output", "early")
    script = f"{sys.executable} slow.py 3"
    done = again(two[0], "--exec", script, *options, "--stop-at", "first-divergence")
    assert done.code == 1, done
    assert "Note: stopped at the first divergence that was seen: layers.3.mlp, task 0, rank 3" in done.out
    report = report_of(two[0], "early")
    assert 4 <= len(report["labels"]) < 600 and report["first_divergence"]["ranks"] == [3]
    assert again(two[0], "compare", "early", "--address", f"{two[0].ip}:6379").code == 1
    assert report_of(two[0], "early") == report

    def left() -> list[psutil.Process]:
        processes = [each for host in two for each in host.processes()]
        return living(lambda each: re.search(r"slow\.py|Follower", command_of(each)), processes)

    wait_until(lambda: not left(), left)


def test_later_without_the_other_host(two: list[Host], bad: dict) -> None:
    done = again(two[0], "compare", "bad")
    assert done.code == 4, done
    report = report_of(two[0], "bad")
    assert report["coverage"]["compared"] == 12 and report["coverage"]["failed"] == 12
    for label in report["labels"]:
        assert [label["ranks"][rank]["status"] for rank in "0123"] == ["match", "match", "failed", "failed"]
        assert "host acl-b (10.77.0.2)" in label["ranks"]["2"]["reason"]
    said = "ranks 2-3: their shards lie on host acl-b (10.77.0.2): give --address 10.77.0.1:6379, or bring them with"
    assert f"{said} `aclcmp fetch {two[0].work}/bad --shards`" in done.out


def test_later_on_the_cluster(two: list[Host], bad: dict) -> None:
    done = again(two[1], "compare", "bad", "--address", "10.77.0.1:6379")
    assert done.code == 2 and "run.json" in done.err, "the record is on the first host"
    done = again(two[0], "compare", "bad", "--address", "10.77.0.1:6379")
    assert done.code == 1, done
    assert report_of(two[0], "bad") == bad


def test_a_fetch_goes_on_where_it_was_cut_and_then_one_host_is_enough(two: list[Host], bad: dict) -> None:
    far, near = (host.files / "bad" / "shards" for host in reversed(two))
    parts = two[0].files / "bad" / "fetching.part" / "shards"
    parts.mkdir(parents=True)
    source = (far / "rank00002.h5").read_bytes()
    (parts / "rank00002.h5").write_bytes(source[:20_000])
    (parts / "rank00003.h5").write_bytes(b"other" * 1000)
    (near / "rank00003.journal").write_bytes((far / "rank00003.journal").read_bytes())
    (far / "rank00000.h5").write_bytes(b"not of this host's ranks")
    before = files_in(near)
    done = fetch(two[0], "bad")
    assert done.code == 0 and "Fetched 3 files from 1 host" in done.out and "1 were here already" in done.out, done
    assert files_in(near) == {**files_in(far), **before}
    assert not parts.parent.exists()
    done = fetch(two[0], "bad")
    assert "Nothing new: 4 files of 1 host are here already" in done.out, done
    done = again(two[0], "compare", "bad")
    assert done.code == 1 and report_of(two[0], "bad") == bad, done


def test_ctrl_c_keeps_what_is_there(two: list[Host], bad: dict) -> None:
    far, near = two[1].files / "bad", two[0].files / "bad"
    dumps = far / "dumps" / "rank00002"
    dumps.mkdir(parents=True)
    (dumps / "large.bin").write_bytes(os.urandom(1 << 20) * 700)
    (dumps / "link").symlink_to("/etc/passwd")
    process = subprocess.Popen(
        two[0].command(sys.executable, "-m", "aclcmp", "fetch", "bad", "--all"),
        env=two[0].environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=as_in_a_terminal,
    )  # fmt: skip
    part = near / "fetching.part" / "dumps" / "rank00002" / "large.bin"

    def begun() -> bool:
        with suppress(FileNotFoundError):
            return part.stat().st_size > 0
        return process.poll() is not None

    while not begun():
        time.sleep(0.01)
    (python,) = psutil.Process(process.pid).children()
    python.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3 and "Interrupted; what is here is kept, go on with `aclcmp fetch " in out, out
    kept = part.stat().st_size
    assert 0 < kept < 700 << 20
    done = fetch(two[0], "bad", "--all")
    assert done.code == 4 and "1 links or odd names were not brought" in done.out, done
    assert (near / "dumps/rank00002/large.bin").read_bytes() == (dumps / "large.bin").read_bytes()
    assert (near / "logs" / "rank00003.log").exists() and not (near / "dumps/rank00002/link").exists()
    for folder in (near, far):
        (folder / "dumps/rank00002/large.bin").unlink()


def test_a_shared_folder(two: list[Host]) -> None:
    script = f"{sys.executable} model.py 3"
    options = ("--ranks", "4", "--nodes", "2", "--address", "10.77.0.1:6379", "--fetch", "all")
    done = again(two[0], "--exec", script, *options, "--output", "shared/run")
    assert done.code == 1, done
    assert "Nothing needs fetching: host acl-b (10.77.0.2) sees the same files" in done.out
    report = read_report(two[0].shared / "run")
    assert report["coverage"]["compared"] == 24 and report["first_divergence"]["ranks"] == [3]
    left = {path.name for path in (two[0].shared / "run").iterdir() if path.stem != "report"}
    assert left == {"run.json", "shards", "logs"}
    done = again(two[1], "compare", "shared/run")
    assert done.code == 1 and "acl-b" in done.out and "Note: ranks" not in done.out, "the other host sees it all"


def test_a_host_is_lost(two: list[Host], bad: dict) -> None:
    kill(two[1].processes())
    done = again(two[0], "compare", "good", "--address", "10.77.0.1:6379")
    assert done.code == 4, done
    report = report_of(two[0], "good")
    assert report["coverage"]["failed"] == report["coverage"]["compared"] == 12
    assert all(label["ranks"]["3"]["status"] == "failed" for label in report["labels"])
    assert "acl-b" in report["labels"][0]["ranks"]["3"]["reason"]
    assert "ranks 2-3: their shards" in done.out and "acl-b (10.77.0.2)" in done.out
    done = fetch(two[0], "good")
    assert done.code == 4 and "Not fetched: host acl-b (10.77.0.2) has left the cluster" in done.out, done
    done = again(two[0], "compare", "bad", "--address", "10.77.0.1:6379")
    assert done.code == 1 and report_of(two[0], "bad") == bad, "what was fetched before is compared"
    start_ray(two[1], "10.77.0.1:6379")
    done = again(two[0], "compare", "good", "--address", "10.77.0.1:6379")
    assert done.code == 0, "it is found again by its address and name"
