"""Wrong input: one clear line, exit code 2, nothing started, nothing overwritten."""

import os
from pathlib import Path

import h5py
import pytest

from aclcmp.labeling.shard.hdf5_types import decode_text
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.shard_writer import ShardWriter
from tests.cli.conftest import Command, assert_one_line
from tests.labeling.shard.test_damage import write


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ranks", "2"], "--exec"),
        ([], "no command"),
        (["--exec", ""], "command"),
        (["--exec", "python x.py > out.txt"], "no shell"),
        (["--exec", "python x.py && python x.py"], "bash -c"),
        (["--exec", "no-such-command --x"], "no-such-command"),
        (["--exec", "./missing.sh"], "missing.sh"),
        (["--exec", "python 'unclosed"], "cannot be split"),
        (["--exec", "python x.py", "--ranks", "0"], "rank"),
        (["--exec", "python x.py", "--ranks", "-3"], "rank"),
        (["--exec", "python x.py", "--ranks", "many"], "--ranks"),
        (["--exec", "python x.py", "--rank", "2"], "--ranks"),
        (["--exec", "python x.py", "--device", "tpu"], "tpu"),
        (["--exec", "python x.py", "--env", "NOVALUE"], "NAME=VALUE"),
        (["--exec", "python x.py", "--env", "RANK=3"], "RANK"),
        (["--exec", "python x.py", "--timeout", "0"], "timeout"),
        (["--exec", "python x.py", "--labels", "a("], "not a regular expression"),
        (["--exec", "python x.py", "--tasks", "3-1"], "empty range"),
        (["--exec", "python x.py", "--tasks", "all"], "0-3,7"),
        (["--exec", "python x.py", "--capture", "some"], "fingerprint"),
        (["--exec", "python x.py", "--clean", "--no-compare"], "--no-compare compares none"),
        (["--exec", "torchrun x.py"], "--launcher script"),
        (["--exec", "python x.py", "--address", "127.0.0.1:1"], "no Ray answers at 127.0.0.1:1"),
        (["--exec", "python x.py", "--address", "nonsense"], "HOST:PORT"),
        (["compare"], "RUN"),
        (["--exec", "python x.py", "--fetch", "logs"], "shards"),
        (["--exec", "python x.py", "--stop-at", "layer 3"], "first-divergence"),
        (["--exec", "python x.py", "--stop-at", "first-divergence", "--no-compare"], "needs a comparison"),
        (["--exec", "python x.py", "--stop-at", "first-divergence", "--floor", "repeat"], "give a profile"),
        (["--exec", "python x.py", "--local", "missing"], "missing is not a folder"),
        (["--exec", "python x.py", "--local", "."], "no run.json"),
        (["--exec", "python x.py", "--local", ".", "--inject", "a", "--golden", "."], "give one of them"),
        (["--exec", "python x.py", "--inject", "a"], "--inject and --golden belong together"),
        (["--exec", "python x.py", "--golden", "."], "--inject and --golden belong together"),
        (["--exec", "python x.py", "--golden", ".", "--inject", ","], "give ids with commas"),
        (["--exec", "python x.py", "--local", ".", "--floor", "repeat"], "--floor repeat runs the command again"),
        (["--exec", "python x.py", "--local", ".", "--address", "127.0.0.1:1"], "leave out --address"),
        (["--exec", "python x.py", "--local", ".", "--clean"], "--clean removes dumps"),
        (["--exec", "python x.py", "--local", ".", "--stop-at", "first-divergence"], "that --local takes away"),
        (["compare", "missing"], "missing"),
        (["compare", ".", ".", "--address", "127.0.0.1:6379"], "aclcmp fetch RUN --shards"),
        (["compare", "."], "run.json"),
        (["recover", "missing/rank00000.h5"], "does not exist"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_one_line_and_code_2(quick_aclcmp: Command, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "x.py").write_text("")
    assert_one_line(quick_aclcmp(*arguments), words)
    assert [path.name for path in tmp_path.iterdir()] == ["x.py"]


def test_no_command_but_help(quick_aclcmp: Command) -> None:
    for arguments in (["--help"], ["run", "--help"], ["compare", "-h"], ["recover", "--help"], ["verdict", "-h"]):
        done = quick_aclcmp(*arguments)
        assert done.code == 0 and "Usage: aclcmp" in done.out
    assert quick_aclcmp("--version").out.startswith("aclcmp 0.1")


def test_options_of_run_are_frozen(quick_aclcmp: Command) -> None:
    import re

    options = sorted(set(re.findall(r"^\s+(--[a-z-]+)", quick_aclcmp("run", "--help").out, re.MULTILINE)))
    assert options == [
        "--address",
        "--capture",
        "--clean",
        "--device",
        "--env",
        "--exec",
        "--fail-on",
        "--fetch",
        "--floor",
        "--golden",
        "--inject",
        "--inputs",
        "--json",
        "--kv-cache",
        "--labels",
        "--launcher",
        "--local",
        "--low-level",
        "--no-compare",
        "--nodes",
        "--output",
        "--policy",
        "--ranks",
        "--second-look",
        "--stop-at",
        "--strict",
        "--tasks",
        "--timeout",
        "--visibility",
    ]


def test_output_that_holds_another_run(quick_aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text("{}")
    done = quick_aclcmp("--exec", "python x.py", "--output", "old")
    assert done.code == 2 and "holds another run" in done.err
    assert (tmp_path / "old" / "run.json").read_text() == "{}"


@pytest.mark.ray
def test_more_npus_than_there_are(aclcmp: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.py").write_text("")
    monkeypatch.setenv("ACLCMP_SIMULATE", '{"NPU": 2}')
    done = aclcmp("--exec", "python x.py", "--ranks", "3", "--device", "npu")
    assert done.code == 2 and "3 NPU" in done.err and "has 2" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.py"]


def damaged(folder: Path, how: str) -> None:
    """Make a run directory whose one shard is damaged."""
    shards = folder / "run" / "shards"
    shards.mkdir(parents=True)
    (folder / "run" / "run.json").write_text(
        '{"schema": 1, "run_id": "r", "command": ["x"], "cwd": "/", "launcher": "ray", "device": "cpu", '
        '"visibility": "node", "cluster": "local Ray", "started": 0, "finished": 1, "versions": {}, "environment": {}, '
        '"ranks": []}'
    )
    writer: ShardWriter = write(shards, ShardHeader("r", 0, 1, 0, 0, "host", 1, 0.0))
    path = writer.files.segment(0)
    if how != "truncated":
        writer.files.journal.unlink()
    if how == "not HDF5":
        path.write_text("hello")
    elif how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "from the future":
        with h5py.File(path, "r+") as file:
            file.attrs["header"] = decode_text(file.attrs["header"]).replace('"schema": 1', '"schema": 99')
    else:
        with h5py.File(path, "r+") as file:
            file["tasks/0/x"] = h5py.ExternalLink("/etc/passwd", "/x")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("not HDF5", "not HDF5"),
        ("truncated", "damaged after it was sealed"),
        ("from the future", "schema 99"),
        ("with an external link", "refused"),
    ],
)
def test_damaged_shards(quick_aclcmp: Command, tmp_path: Path, how: str, words: str) -> None:
    damaged(tmp_path, how)
    before = sorted(path for path in tmp_path.rglob("*"))
    assert_one_line(quick_aclcmp("compare", "run"), words)
    assert sorted(path for path in tmp_path.rglob("*")) == before
