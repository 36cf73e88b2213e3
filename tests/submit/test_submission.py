"""The command of a job: the options of `aclcmp run`, whole words through the shell, no secrets."""

import re
import subprocess
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.redaction import HIDDEN
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit.job_section import keys, read_section
from aclcmp.orchestrator.submit.submission import arguments, on_cluster, submission
from tests.cli.conftest import Command, aclcmp

__all__ = ["aclcmp"]


def test_keys_are_the_options_of_run(aclcmp: Command) -> None:
    options = set(re.findall(r"^\s+--([a-z-]+)", aclcmp("run", "--help").out, re.MULTILINE))
    shared = {name.replace("_", "-") for name in set(keys()) - {"working_dir", "excludes", "output"}}
    assert shared == options - {"address", "help", "json", "output"}


@pytest.mark.parametrize(
    "also", [{"no_compare": "true", "floor": "perturb"}, {"stop_at": "first-divergence", "clean": "true"}]
)
def test_every_option_is_given(aclcmp: Command, tmp_path: Path, also: dict[str, str]) -> None:
    everything = {
        "exec": "python 'a b.py' $HOME", "ranks": "4", "nodes": "2", "device": "cpu", "env": {"A": "x y", "B": "$A"},
        "timeout": "1.5", "visibility": "own", "launcher": "script", "strict": "true",
        "low_level": "true", "labels": "^a|b$", "tasks": "0-3", "capture": "stats", "policy": "p.toml",
        "fail_on": "own", "fetch": "all", **also,
    }  # fmt: skip
    words = arguments(read_section(everything, "here"))
    assert words[:4] == ["aclcmp", "run", "--exec", "python 'a b.py' $HOME"]
    for key, value in everything.items():
        option = "--" + key.replace("_", "-")
        assert option in words
        if isinstance(value, str) and value != "true":
            assert words[words.index(option) + 1] == value
    assert [words[at + 1] for at, word in enumerate(words) if word == "--env"] == ["A=x y", "B=$A"]
    (tmp_path / "p.toml").touch()
    done = aclcmp(*words[1:], "--ranks", "0")  # it understands all of them, and refuses the last
    assert done.code == 2 and "--ranks 0" in done.err, done


def test_a_password_within_a_value_is_a_secret(tmp_path: Path) -> None:
    env = {"http_proxy": "http://me:hush@proxy:3128", "HF_TOKEN": "hush", "ENDPOINT": "http://host/a@b"}
    job = submission(read_section({"exec": "x", "env": env}, "here"), "aclcmp-1", tmp_path)
    assert "hush" not in job.entrypoint + repr(job) and "--env ENDPOINT=http://host/a@b" in job.entrypoint
    assert job.shown_variables == {"http_proxy": HIDDEN, "HF_TOKEN": HIDDEN}


def test_a_long_time_is_not_rounded() -> None:
    assert arguments(read_section({"exec": "x", "timeout": "1234567.5"}, "here"))[-1] == "1234567.5"


def test_the_shell_gives_the_words_back(tmp_path: Path) -> None:
    section = read_section({"exec": "python 'it''s' \"two words\" $(id) `id` \"; |\"", "env": {"A": "'$B\"\n"}}, "here")
    job = submission(section, "aclcmp-1", tmp_path)
    show = tmp_path / "aclcmp"
    show.write_text('#!/bin/sh\nfor each in "$@"; do printf "%s\\0" "$each"; done\n')
    show.chmod(0o755)
    for home, where in (({"HOME": "/home/a b"}, "/home/a b"), ({}, "/tmp")):
        done = subprocess.run(
            ["sh", "-c", job.entrypoint],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", **home},
            capture_output=True,
            text=True,
        )
        got = done.stdout.split("\0")[:-1]
        assert got == [*arguments(section)[1:], "--address", "auto", "--output", f"{where}/aclcmp-runs/aclcmp-1"]


def test_secrets_are_not_in_the_line(tmp_path: Path) -> None:
    env = {"HF_TOKEN": "hush", "my_password": "hush2", "HCCL_BUFFSIZE": "200"}
    job = submission(read_section({"exec": "x", "env": env}, "here"), "aclcmp-1", tmp_path)
    assert "hush" not in job.entrypoint and "HCCL_BUFFSIZE=200" in job.entrypoint
    assert job.variables == {"HF_TOKEN": "hush", "my_password": "hush2"}
    assert job.shown_variables == {"HF_TOKEN": HIDDEN, "my_password": HIDDEN}
    assert "hush" not in repr(job)


def test_folders_on_the_cluster() -> None:
    assert on_cluster("/a b/c") == "'/a b/c'"
    assert on_cluster("~/a b") == "\"${HOME:-/tmp}\"/'a b'"
    assert on_cluster("~/$(id)") == "\"${HOME:-/tmp}\"/'$(id)'"


def test_working_directory(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    section = read_section({"exec": "x", "working_dir": "code", "excludes": ["*.bin"]}, "here")
    job = submission(section, "aclcmp-1", tmp_path)
    assert job.working_dir == tmp_path / "code" and job.excludes[-1] == "*.bin" and ".venv/" in job.excludes
    with pytest.raises(UsageError, match="no folder here"):
        submission(section, "aclcmp-1", tmp_path / "code")
    with pytest.raises(UsageError, match="no such file in the working_dir"):
        submission(read_section({"exec": "x", "working_dir": "code", "policy": "p.toml"}, "here"), "a", tmp_path)
