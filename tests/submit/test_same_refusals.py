"""What `aclcmp run` refuses before it starts anything, `aclcmp submit --dry-run` refuses too, in the same words."""

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from enum import Enum
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.cli import commands
from aclcmp.orchestrator.cli.app import run_cli
from aclcmp.orchestrator.core.job import JobOptions
from aclcmp.orchestrator.core.option_fields import OptionField, options_of
from aclcmp.orchestrator.errors import LaunchError

NOT_REFUSED = 3
Ask = Callable[[dict[str, Any]], tuple[int, str]]


def call(*arguments: str) -> tuple[int, str]:
    """Run the command line in this process; return its exit code and stderr."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        return run_cli(arguments), said.getvalue()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask `aclcmp run`, which starts nothing, in a folder with a few scripts."""

    def refuse(*_: object) -> None:
        raise LaunchError("nothing is started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "open_cluster", refuse)
    (tmp_path / "torch.sh").write_text("torchrun run.py\n")
    (tmp_path / "right.toml").touch()
    (tmp_path / "wrong.toml").write_text("own_factor = 0.5\n")
    (tmp_path / "folder").mkdir()

    def ask(values: dict[str, Any]) -> tuple[int, str]:
        words = []
        for name, value in values.items():
            flag = "--" + name.replace("_", "-")
            if isinstance(value, dict):
                words += [word for pair in value.items() for word in (flag, "=".join(pair))]
            elif value is not False:
                words += [flag] if value is True else [f"{flag}={value}"]
        return call("run", *words)

    return ask


@pytest.fixture
def submit(tmp_path: Path, run: Ask) -> Ask:
    """Ask `aclcmp submit --dry-run` in the same folder."""

    def ask(values: dict[str, Any]) -> tuple[int, str]:
        file = tmp_path / "cluster.yaml"
        job = {name: value for name, value in {"working_dir": ".", **values}.items() if value is not None}
        file.write_text(yaml.safe_dump({"address": "http://127.0.0.1:1", "aclcmp": job}))
        return call("submit", "cluster.yaml", "--dry-run")

    return ask


TEXTS = {
    "exec": ["true", "bash torch.sh", "torchrun run.py", "", "python 'x", "true | true", "./none.sh", "./folder"],
    "labels": ["", "layers", "a("],
    "tasks": ["", "0-3", "3-1", "all"],
    "policy": ["right.toml", "wrong.toml", "none.toml", "folder"],
    "second_look": ["all", "none", "0", "2.5", "-1", "soon", "nan"],
    "floor": ["perturb", "repeat", "folder", "none.h5"],
}
VARIABLES: list[dict[str, str]] = [{}, {"A": "1"}, {"RANK": "1"}, {"ACLCMP_X": "1"}]


def values_of(each: OptionField) -> list[Any]:
    """Return values of an option, right and wrong ones."""
    if each.name in TEXTS:
        return list(TEXTS[each.name])
    if each.takes_pairs:
        return list(VARIABLES)
    kind = next(iter(get_args(each.type) or (each.type,)))
    if kind is bool:
        return [True, False]
    if issubclass(kind, Enum):
        return [one.value for one in kind]
    assert kind in (int, float), f"{each.name}: give values of it above"
    return [kind(number) for number in (-1, 0, 1, 2, 3)]


@settings(max_examples=150)
@given(
    st.fixed_dictionaries(
        {"exec": st.sampled_from(TEXTS["exec"])},
        optional={each.name: st.sampled_from(values_of(each)) for each in options_of(JobOptions) if not each.required},
    )
)
@example({"exec": "true", "ranks": 2})
def test_what_run_refuses_submit_refuses(run: Ask, submit: Ask, values: dict[str, Any]) -> None:
    code, said = run(values)
    assert code in (2, NOT_REFUSED), said
    code_of_submit, said_of_submit = submit(values)
    if code == 2:
        assert code_of_submit == 2, f"run: {said}"
    else:
        assert code_of_submit == 0, said_of_submit


@pytest.mark.parametrize(
    ("values", "by_run", "by_submit"),
    [
        (
            {"no_compare": True, "stop_at": "first-divergence"},
            "--stop-at first-divergence needs a comparison, and --no-compare allows none; give one of them",
            ": stop_at: first-divergence needs a comparison, and no_compare allows none; give one of them",
        ),
        (
            {"floor": "perturb", "stop_at": "first-divergence"},
            "--stop-at first-divergence judges while the command runs, --floor perturb measures in a second run; give",
            ": stop_at: first-divergence judges while the command runs, floor: perturb measures in a second run; give",
        ),
        (
            {"clean": True, "no_compare": True},
            "--clean removes dumps that match, and --no-compare compares none; give one of them",
            ": clean removes dumps that match, and no_compare compares none; give one of them",
        ),
        (
            {"ranks": 3, "nodes": 2},
            "--ranks 3 cannot be spread evenly over --nodes 2",
            ": 3 ranks cannot be spread evenly over 2 nodes",
        ),
        (
            {"exec": "python x.py > out.txt"},
            "--exec: no shell runs the command, so '>' would be an argument; use bash -c",
            ".exec: no shell runs the command, so '>' would be an argument; use bash -c",
        ),
        (
            {"exec": "torchrun x.py"},
            "torchrun starts its own ranks; add --launcher script, or give the plain command",
            ": torchrun starts its own ranks; add launcher: script, or give the plain command",
        ),
        (
            {"exec": "bash torch.sh"},
            "torchrun in torch.sh starts its own ranks; add --launcher script, or give the plain command",
            "torchrun in torch.sh starts its own ranks; add launcher: script, or give the plain command",
        ),
        ({"ranks": 0}, "--ranks 0: at least one rank is needed", ".ranks: at least one rank is needed"),
        ({"nodes": 0}, "--nodes 0: at least one node is needed", ".nodes: at least one node is needed"),
        (
            {"timeout": -1.0},
            "--timeout -1: give a positive number of seconds",
            ".timeout: give a positive number of seconds",
        ),
        (
            {"env": {"RANK": "1"}},
            "--env RANK: aclcmp sets this variable for every rank; it cannot be overridden",
            ".env.RANK: aclcmp sets this variable for every rank; it cannot be overridden",
        ),
        ({"labels": "a("}, "--labels: 'a(' is not a regular", ".labels: 'a(' is not a regular"),
        ({"tasks": "3-1"}, "--tasks: '3-1': 3-1 is an empty range", ".tasks: '3-1': 3-1 is an empty range"),
        ({"exec": "./none.sh"}, "./none.sh: no such file", "exec ./none.sh: no such file in the working_dir"),
        ({"policy": "wrong.toml"}, "wrong.toml: own_factor: ", "wrong.toml: own_factor: "),
        ({"floor": "folder"}, "--floor folder is a folder", "floor folder: no such profile"),
    ],
)
def test_in_the_same_words(run: Ask, submit: Ask, values: dict[str, Any], by_run: str, by_submit: str) -> None:
    values = {"exec": "true", **values}
    for code, said in (run(values), submit(values)):
        assert code == 2 and said.startswith("aclcmp: error: ") and said.count("\n") == 1, said
    assert by_run in run(values)[1]
    assert by_submit in submit(values)[1]
    if by_submit[0] in ".:":  # what needs no file is refused also where nothing is uploaded
        code, said = submit({**values, "working_dir": None})
        assert code == 2 and f"cluster.yaml: aclcmp{by_submit}" in said
