"""`--local` and `--inject` on a real vLLM with three ranks: all faults of a run are named, and injection mends the end.

Engines take long to start: the faults of a run are many, and two runs serve all tests.
"""

import os
from pathlib import Path

import pytest

from tests.case.showing import show_case
from tests.engines.engine_runs import run
from tests.engines.rounds_text import LONG
from tests.recorded import read_report

pytestmark = pytest.mark.engine

SCRIPT = Path(__file__).parent / "faulty_vllm.py"
FAULTS = {
    "model.layers.0.self_attn.o_proj:scale": ("model.layers.0.self_attn.o_proj", [0, 1, 2]),
    "model.layers.0.mlp.act_fn:zero": ("model.layers.0.mlp.down_proj.input", [0, 1, 2]),
    "model.layers.1.self_attn.attn:rank": ("model.layers.1.self_attn.o_proj.input", [1]),
    "model.layers.1.mlp.gate_up_proj:zero": ("model.layers.1.mlp.gate_proj", [0, 1, 2]),
    "model.layers.2.post_attention_layernorm:scale": ("model.layers.2.post_attention_layernorm", [0, 1, 2]),
    "model.layers.2.mlp.down_proj:zero": ("model.layers.2.mlp.down_proj", [0, 1, 2]),
}
OPTIONS = "--dtype float32 --max-model-len 256 --block-size 32 --max-num-batched-tokens 32 --max-num-seqs 4"
SLACK = 3e-5


def own(folder: Path) -> dict[str, list[int]]:
    found = {}
    for label in read_report(folder)["labels"]:
        ranks = [int(rank) for rank, verdict in label["ranks"].items() if verdict["origin"] == "own"]
        if ranks:
            found[label["label"]] = ranks
    return found


@pytest.fixture(scope="module")
def carried(engine: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with six faults, and its golden side."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "prompts.txt").write_text(f"{LONG}\nOnce upon a time\n{LONG}\n")
    code, out, _ = execute(engine, folder, smollm2, "carried", "--no-compare")
    assert code == 0, out
    done = run(engine, folder, "golden", "carried", "--model", str(smollm2))
    assert done.returncode == 1, done
    return folder


def execute(engine: Path, folder: Path, model: Path, output: str, *options: str) -> tuple[int, str, str]:
    command = f"{engine}/python {SCRIPT} {model} {folder}/prompts.txt 4 {OPTIONS}"
    words = ("--exec", command, "--ranks", "3", "--output", output, *options)
    os.environ["FAULTS"] = ",".join(FAULTS)
    done = run(engine, folder, *words)
    del os.environ["FAULTS"]
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def local(engine: Path, smollm2: Path, carried: Path) -> Path:
    """The folder of the run on golden's values."""
    code, out, _ = execute(engine, carried, smollm2, "local", "--local", "carried")
    assert code == 1 and "own L2" in out
    return carried / "local"


def test_six_faults_are_six_labels(engine: Path, carried: Path, local: Path) -> None:
    due = dict(FAULTS.values())
    assert own(carried / "local") == due
    assert len(own(carried / "carried")) < len(due), "the carried errors alone hide some of them"
    report = read_report(local)
    verdicts = [verdict for label in report["labels"] for verdict in label["ranks"].values()]
    assert all(verdict["own"] is not None for verdict in verdicts)
    right = [verdict["own"]["rel_l2"] for verdict in verdicts if verdict["origin"] != "own"]
    assert max(right) < SLACK, "all others are off by round-off, in chunks, steps and behind a prefix hit"
    again = run(engine, carried, "compare", "local")
    assert again.returncode == 1 and own(carried / "local") == due


@pytest.mark.parametrize("name", dict(FAULTS.values()))
def test_a_case_confirms_each_fault(smollm2: Path, carried: Path, local: Path, name: str) -> None:
    """From golden's input and from the engine's own alike, with the number of the report."""
    (label,) = (each for each in read_report(local)["labels"] if each["label"] == name)
    verdicts = [each for each in label["ranks"].values() if each["origin"] == "own"]
    for run_name, kind in (("local", "own"), ("carried", "metrics")):
        said, shown = show_case(carried / run_name, name, smollm2, carried / f"case-{run_name}-{name}")
        confirmed = shown.splitlines()[-1]
        assert confirmed.startswith("confirms own: golden agrees with the recomputation") and confirmed in said, shown
        numbers = [f"{each[kind]['worst_row']:.1e}" for each in verdicts]
        assert any(f"worst row {number}; the report says {number}\n" in shown for number in numbers), shown


@pytest.mark.parametrize("name", ["model.layers.0", "model.layers.1.self_attn.o_proj", "model.layers.2.mlp.up_proj"])
def test_a_case_confirms_no_inherited_error(smollm2: Path, carried: Path, local: Path, name: str) -> None:
    said, shown = show_case(carried / "carried", name, smollm2, carried / f"case-{name}")
    assert "does not confirm own: actual agrees with what its own input gives" in shown, shown
    assert "the error came in with the input" in said
    assert "does not confirm own" in show_case(local, name, smollm2, carried / f"case-local-{name}")[1]


def test_injection_mends_the_end(engine: Path, smollm2: Path, carried: Path) -> None:
    """Golden's last norm mends the logits; golden's layer 0 does not, with faults behind it."""
    labels = ["model.layers.0,model.layers.1,model.norm", "model.layers.0"]
    for number, (names, words) in enumerate(zip(labels, ("agree", "still differ"), strict=True)):
        output = f"inject{number}"
        _, out, _ = execute(engine, carried, smollm2, output, "--golden", "carried", "--inject", names)
        assert f"with golden's {names.replace(',', ', ')} the final logits {words} (error " in out, out[-2000:]


def test_check_names_own_errors_in_one_command(engine: Path, smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(f"{LONG}\n")
    done = run(
        engine, tmp_path, "check", str(smollm2), "--prompts", "prompts.txt", "--max-tokens", "3", "--output", "run",
        "--local", "--", *OPTIONS.split(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    report = read_report(tmp_path / "run")
    assert all(verdict["own"]["rel_l2"] < SLACK for label in report["labels"] for verdict in label["ranks"].values())
    assert any(note.startswith(f"own errors measured: {len(report['labels'])} of") for note in report["notes"])
