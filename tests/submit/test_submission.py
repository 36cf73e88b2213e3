"""The command of a job: the options of `aclcmp run`, whole words through the shell, no secrets."""

import re
import shlex
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
    shared = {name.replace("_", "-") for name in set(keys()) - {"working_dir", "excludes", "output", "check"}}
    assert shared == options - {"address", "golden", "help", "inject", "json", "local", "output"}


@pytest.mark.parametrize(
    "also", [{"no_compare": "true", "floor": "perturb"}, {"stop_at": "first-divergence", "clean": "true"}]
)
def test_every_option_is_given(aclcmp: Command, tmp_path: Path, also: dict[str, str]) -> None:
    everything = {
        "exec": "python 'a b.py' $HOME", "ranks": "4", "nodes": "2", "device": "cpu", "env": {"A": "x y", "B": "$A"},
        "timeout": "1.5", "visibility": "own", "launcher": "script", "strict": "true",
        "low_level": "true", "inputs": "true",
        "labels": "^a|b$", "tasks": "0-3", "capture": "stats", "policy": "p.toml",
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


CHECK = "/models/m --prompts 'my prompts.txt' --max-tokens 4 -- --dtype bfloat16"


def test_a_check_in_place_of_a_command(aclcmp: Command, tmp_path: Path) -> None:
    """Its options stand before those of the engine, which come last; variables are those of the job."""
    (tmp_path / "my prompts.txt").write_text("hello\n")
    given = {"check": CHECK, "ranks": "3", "device": "cpu", "fail_on": "own", "env": {"A": "1"}, "working_dir": "."}
    job = submission(read_section(given, "here"), "aclcmp-1", tmp_path)
    assert job.entrypoint == (
        "aclcmp check /models/m --prompts 'my prompts.txt' --max-tokens 4 --ranks 3 --device cpu --fail-on own "
        '--address auto --output "${HOME:-/tmp}"/aclcmp-runs/aclcmp-1 -- --dtype bfloat16'
    )
    assert job.variables == {"A": "1"}
    done = aclcmp(*shlex.split(job.entrypoint)[1:])  # it understands all of them
    assert done.code == 2 and "/models/m" in done.err, done


@pytest.mark.parametrize(
    ("also", "words"),
    [
        ({"exec": "x"}, "here.check: it stands in place of exec; give one of them"),
        ({"nodes": "2"}, "here.nodes: aclcmp check takes no such option; leave it out"),
        ({"capture": "stats"}, "here.capture: aclcmp check takes no such option"),
        ({"check": "'"}, "cannot be split into words: No closing quotation"),
        ({"check": ""}, "here.check: nothing stands here"),
    ],
)
def test_what_a_check_refuses(also: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        read_section({"check": CHECK, **also}, "here")


def test_prompts_that_are_not_uploaded_are_told(tmp_path: Path) -> None:
    section = read_section({"check": CHECK, "working_dir": "."}, "here")
    with pytest.raises(UsageError, match=r"check --prompts my prompts.txt: no such file in the working_dir"):
        submission(section, "aclcmp-1", tmp_path)
