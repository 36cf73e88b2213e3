"""Wrong input of `aclcmp check` and `aclcmp golden`: one clear line, exit code 2, nothing started or overwritten.

No engine is installed here, which is one of the mistakes.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.rows import Rows
from aclcmp.orchestrator.engines.mode_verdicts import mode_verdict
from aclcmp.orchestrator.errors import worst_code
from aclcmp.orchestrator.run.directory import RunDir
from tests.cli.conftest import Command, assert_one_line
from tests.recorded import record_run, recorder_of


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with a model of 9 heads, no model, damaged ones, and files of prompts."""
    configs = {
        "model": '{"num_attention_heads": 9}',
        "quantised": '{"num_attention_heads": 9, "quantization_config": {"quant_method": "awq"}}',
        "text": "not JSON",
        "array": "[1, 2]",
        "binary": "\0\1",
        "deep": "[" * 100_000,
    }
    for name, content in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    (tmp_path / "empty_folder").mkdir()
    (tmp_path / "prompts.txt").write_text("Once upon a time\n\nThe end\n")
    (tmp_path / "blank.txt").write_text("\n  \n\t\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    (tmp_path / "zeros.txt").write_bytes(b"\0" * 64)
    (tmp_path / "large.txt").write_text("a" + "\u00e9" * (8 << 20), encoding="utf-8")
    (tmp_path / "dump").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing", "--prompts", "prompts.txt"], "missing is no model folder: it has no config.json"),
        (["empty_folder", "--prompts", "prompts.txt"], "is no model folder: it has no config.json"),
        (["prompts.txt", "--prompts", "prompts.txt"], "config.json cannot be read"),
        (["text", "--prompts", "prompts.txt"], "config.json cannot be read"),
        (["binary", "--prompts", "prompts.txt"], "config.json cannot be read"),
        (["deep", "--prompts", "prompts.txt"], "config.json cannot be read"),
        (["array", "--prompts", "prompts.txt"], "is no configuration of a model"),
        (["model"], "--prompts FILE is needed"),
        (["quantised", "--prompts", "prompts.txt"], "the quantisation is not known (quant_method 'awq'); known is"),
        (["model", "--prompts", "prompts.txt", "--price"], "--price is for quantised models, and model is none"),
        (["model", "--prompts", "prompts.txt", "--original", "missing"], "missing is no model folder"),
        (["model", "--prompts", "missing.txt"], "--prompts missing.txt: No such file"),
        (["model", "--prompts", "dump"], "--prompts dump: Is a directory"),
        (["model", "--prompts", "empty.txt"], "is empty; give one prompt a line"),
        (["model", "--prompts", "blank.txt"], "is empty; give one prompt a line"),
        (["model", "--prompts", "latin.txt"], "is no text in UTF-8"),
        (["model", "--prompts", "zeros.txt"], "is no text of prompts"),
        (["model", "--prompts", "large.txt"], "large.txt has more than 16 MiB; that is no text of prompts"),
        (["model", "--prompts", "prompts.txt", "--ranks", "2"], "can be split over 1, 3, 9 ranks"),
        (["model", "--prompts", "prompts.txt", "--ranks", "0"], "--ranks"),
        (["model", "--prompts", "prompts.txt", "--max-tokens", "0"], "--max-tokens"),
        (["model", "--prompts", "prompts.txt", "--engine", "other"], "--engine"),
        (
            ["model", "--prompts", "prompts.txt", "--ranks", "3"],
            "--engine vllm is not installed here: pip install vllm",
        ),
        (["model", "--prompts", "prompts.txt", "--modes", "eager,fast"], "'fast' is none of eager, compiled, graph"),
        (["model", "--prompts", "prompts.txt", "--modes", ""], "is none of eager, compiled, graph"),
        (["model", "--prompts", "prompts.txt", "--modes", "eager", "--", "--enforce-eager"], "--modes sets what"),
        (["model", "--prompts", "prompts.txt", "--modes", "eager", "--", "-O3"], "--modes sets what -O3 does"),
        (["model", "--prompts", "prompts.txt", "--modes", "eager,compiled", "--json"], "RUN/MODE/report.json"),
        (["model", "--engine", "external"], "needs one run that exists"),
        (["model", "--engine", "external", "one", "two"], "needs one run that exists"),
        (["model", "--engine", "external", "dump"], "dump is no run of aclcmp"),
        (["model", "--engine", "external", "missing"], "missing"),
        (["model", "--engine", "external", "dump", "--prompts", "prompts.txt"], "starts nothing: leave out --prompts"),
        (
            ["model", "--engine", "external", "dump", "--output", "x", "--timeout", "3"],
            "leave out --output and --timeout",
        ),
    ],
)
def test_check_refuses(quick_aclcmp: Command, inputs: Path, arguments: list[str], words: str) -> None:
    before = sorted(inputs.iterdir())
    assert_one_line(quick_aclcmp("check", *arguments), words)
    assert sorted(inputs.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "--model"),
        (["missing", "--model", "model"], "missing"),
        (["dump", "--model", "model"], "run.json"),
        (["run", "--model", "empty_folder"], "is no model folder"),
        (["run", "--model", "quantised"], "the quantisation is not known (quant_method 'awq')"),
        (["run", "--model", "model", "--original", "model"], "--original is for quantised models"),
        (["run", "--model", "model"], "holds no label with rows: was it recorded in an engine?"),
        (["run", "--model", "model", "--policy", "missing.toml"], "missing.toml"),
    ],
)
def test_golden_refuses(quick_aclcmp: Command, inputs: Path, arguments: list[str], words: str) -> None:
    engine_run(inputs / "run", sides=())
    assert_one_line(quick_aclcmp("golden", *arguments), words)


def engine_run(folder: Path, sides: tuple[str, ...], rows: bool = True, failed: str = "") -> None:
    """Write a run as an engine leaves it, with one label for each side."""
    run = RunDir(folder, "run")
    run.shards.mkdir(parents=True)
    run.logs.mkdir()
    recorder = recorder_of(run.shards)
    for side in sides:
        names = Rows("0", [0, 1], [5, 6]) if rows else None
        recorder.record(side, "model.norm", np.ones((2, 4), np.float32), None, None, "", None, "f.py:1", names)
    if failed:
        recorder.skip("acl", "model.norm", failed, "f.py:2")
    recorder.close()
    record_run(run, "engine.py", 1)


@pytest.mark.parametrize(
    ("sides", "rows", "failed", "words"),
    [
        (("acl", "pta"), True, "", "has a golden side already; compare it: aclcmp compare"),
        (("acl",), False, "", "holds no label with rows: was it recorded in an engine?"),
        ((), True, "it ran in a graph", "holds no label with rows: its labels failed: it ran in a graph"),
    ],
)
@pytest.mark.parametrize("command", ["golden", "external"])
def test_a_run_that_golden_cannot_follow(
    quick_aclcmp: Command, inputs: Path, sides: tuple[str, ...], rows: bool, failed: str, words: str, command: str
) -> None:
    engine_run(inputs / "run", sides, rows, failed)
    shards = sorted((inputs / "run" / "shards").iterdir())
    golden = ["golden", "run", "--model", "model"]
    assert_one_line(
        quick_aclcmp(*(golden if command == "golden" else ["check", "model", "--engine", "external", "run"])), words
    )
    assert sorted((inputs / "run" / "shards").iterdir()) == shards


def test_two_engines_do_not_write_into_one_run(quick_aclcmp: Command, inputs: Path) -> None:
    engine_run(inputs / "run", ("acl",))
    before = {path: path.read_bytes() for path in (inputs / "run").rglob("*") if path.is_file()}
    for modes in ([], ["--modes", "eager,compiled"]):
        done = quick_aclcmp("check", "model", "--prompts", "prompts.txt", "--output", "run", *modes)
        assert_one_line(done, "--output run holds another run; choose a folder that does not exist yet")
    assert {path: path.read_bytes() for path in (inputs / "run").rglob("*") if path.is_file()} == before


def test_verdicts_of_modes(tmp_path: Path) -> None:
    report = {"first_divergence": {"label": "layers.7.mlp\x1b[31m"}, "labels": [{"status": "drift"}]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert mode_verdict(tmp_path, "eager", 0) == "eager agrees with the original"
    said = mode_verdict(tmp_path, "compiled", 1)
    assert said.startswith("compiled does not agree with the original, from layers.7.mlp") and "\x1b" not in said
    assert "was not compared completely (exit code 4)" in mode_verdict(tmp_path, "graph", 4)
    assert mode_verdict(tmp_path / "none", "graph", 3) == "graph was not compared (exit code 3)"
    (tmp_path / "report.json").write_text(json.dumps({"first_divergence": None, "labels": [{"status": "diverged"}]}))
    assert "graph differs from the original only in what the policy or --fail-on lets" in mode_verdict(
        tmp_path, "graph", 0
    )
    assert "graph drifts from the original, which --fail-on drift refuses" in mode_verdict(tmp_path, "graph", 1)
    assert "was not compared completely (exit code 4)" in mode_verdict(tmp_path, "graph", 4)
    for damaged in ("", "[]", "null", '{"first_divergence": 3}'):
        (tmp_path / "report.json").write_text(damaged)
        assert "was not compared" in mode_verdict(tmp_path, "graph", 1)


@pytest.mark.parametrize(("codes", "worst"), [((0, 0), 0), ((0, 4), 4), ((4, 1), 1), ((1, 3), 3), ((3, 70), 70)])
def test_the_worst_exit_code_counts(codes: tuple[int, ...], worst: int) -> None:
    assert worst_code(codes) == worst == worst_code(reversed(codes))
