"""Quantised checkpoints in a real vLLM on a CPU: red labels of healthy runs, and which faults of scales are named.

SmolLM2-135M cut to some layers is quantised by round to nearest (`quantised_checkpoint.py`): int8, fp8, and W4A16.
Healthy runs are of each checkpoint and each list of prompts; no label of theirs may be red. With --faults scales of
W8A8 are changed in vLLM's own packed weights, in one module of a layer at a time; for each module the smallest factor
that is named at its own output is searched among FACTORS.

    python benchmarks/bench_quantised.py [--layers 3] [--faults 1]     (`make .venv-engine/ready` installs vLLM)

With --tuning the prompts are those by which the number of samples was chosen. No other constant was.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from quantised_checkpoint import quantise

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.engines.engine_runs import add_golden, compare_round, record_rounds
from tests.recorded import read_report

ENGINE = Path(__file__).resolve().parents[1] / ".venv-engine" / "bin"
SOURCE = Path(os.environ.get("ACLCMP_TRAINED", Path(__file__).resolve().parents[1] / ".trained")) / "smollm2"
FORMS = ("w8a8", "fp8", "w4a16")
TUNING = (
    (
        "The harbour master kept two ledgers. In the first he wrote what the ships declared; in the second, by "
        "lamplight, what the porters told him over soup.",
        "The capital of France is Paris. The capital of Germany is Berlin. The capital of",
        "Once upon a time",
    ),
)
TEXTS = (
    (
        "Photosynthesis converts light energy into chemical energy that is later released to fuel the organism.",
        "How does this process differ between C3 and C4 plants?",
    ),
    (
        "Dear Sir, I write to complain about the state of the bridge, whose third arch has leaned since Easter.",
        "import numpy as np; a = np.zeros((3, 4)); print(a.shape); for row in a: print(row.sum())",
        "2 + 2 = 4, 3 + 3 = 6, 4 + 4 =",
    ),
    (
        "The committee met on Tuesday, on Wednesday, and once more, though nobody had asked for it, on Thursday night.",
        "Il pleut sur la ville, et personne ne sait pourquoi les chats restent sous la table.",
    ),
)
MODULES = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
FACTORS = (1.05, 1.1, 1.2, 1.35, 1.5)
FAULTS = ("reversed_order", "along_inputs", "of_tensor")
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def play(folder: Path, model: Path, prompts: tuple[str, ...], rounds: list[str]) -> dict[str, dict[str, Any]]:
    """Run rounds in one engine; return the report of each, beside the golden side of the first."""
    folder.mkdir()
    (folder / "prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    words = " ".join(rounds)
    record_rounds(ENGINE, folder, f"quantised_rounds.py {model} {folder}/rounds {folder}/prompts.txt {words}", 1)
    first, *others = rounds
    add_golden(ENGINE, folder / "rounds" / first, model, 1, "quantised_rounds.py")
    found = {first: read_report(folder / "rounds" / first)}
    return found | {name: read_report(compare_round(ENGINE, folder, first, name)) for name in others}


def is_named(report: dict[str, Any], module: str) -> bool:
    """Tell whether the first divergence is at a module's own output."""
    first = report["first_divergence"]
    owner, _, last = module.rpartition(".")
    return first is not None and first["label"] in {f"{owner}.{part}" for part in PARTS.get(last, (last,))}


def told(report: dict[str, Any]) -> str:
    """Say what a report says first."""
    wrong = sum(label["status"] == "diverged" for label in report["labels"])
    first = report["first_divergence"]
    return f"{wrong} red" + (f", first {first['label']}" if first else "")


def print_healthy(folder: Path, models: dict[str, Path], lists: tuple[tuple[str, ...], ...]) -> None:
    """Print what healthy runs say: how many labels are red, drift, and the largest share of a limit."""
    for form, model in models.items():
        for number, prompts in enumerate(lists):
            (report,) = play(folder / f"healthy-{form}-{number}", model, prompts, ["clean"]).values()
            ranks = [label["ranks"]["0"] for label in report["labels"]]
            drift = sum(rank["status"] == "drift" for rank in ranks)
            errors = [rank["metrics"]["rel_l2"] for rank in ranks if rank["metrics"]]
            margin = max(rank["margin"] or 0 for rank in ranks)
            tokens = {name: sum(each["counts"][name] for each in report["tokens"]) for name in ("tie", "wrong")}
            price = report.get("price", {}).get("logits", 0.0)
            print(
                f"healthy {form} texts {number}: {told(report)} of {len(ranks)}, {drift} drift, rel L2 up to "
                f"{max(errors):.1e}, {margin:.2f} of the limit, tokens {tokens}, price {price:.1e}",
                flush=True,
            )


def print_faults(folder: Path, model: Path, prompts: tuple[str, ...], layer: int) -> None:
    """Print where each fault in a layer is named."""
    modules = [f"model.layers.{layer}.{name}" for name in MODULES]
    rounds = [f"scaled:{module}:{factor}" for module in modules for factor in FACTORS]
    rounds += [f"{fault}:{module}" for module in modules for fault in FAULTS]
    found = play(folder / "faults", model, prompts, ["clean", *rounds])
    for module in modules:
        named = [factor for factor in FACTORS if is_named(found[f"scaled:{module}:{factor}"], module)]
        red = [factor for factor in FACTORS if found[f"scaled:{module}:{factor}"]["exit_code"] == 1]
        print(f"{module}: scales named from {named[:1]}, red from {red[:1]}; ", end="")
        for fault in FAULTS:
            report = found[f"{fault}:{module}"]
            print(f"{fault} {'named' if is_named(report, module) else told(report)}; ", end="")
        print(flush=True)


def main() -> None:
    """Print all."""
    options = argparse.ArgumentParser()
    options.add_argument("--layers", type=int, default=3)
    options.add_argument("--tuning", action="store_true")
    options.add_argument("--forms", nargs="+", default=FORMS)
    options.add_argument("--faults", type=int, metavar="LAYER", help="plant faults in this layer; else healthy runs")
    chosen = options.parse_args()
    lists = TUNING if chosen.tuning else TEXTS
    with tempfile.TemporaryDirectory() as root:
        models = {form: Path(root, form) for form in chosen.forms}
        for form, path in models.items():
            quantise(SOURCE, path, form, chosen.layers)
        if chosen.faults is not None:
            print_faults(Path(root), models["w8a8"], lists[0], chosen.faults)
        else:
            print_healthy(Path(root), models, lists)


if __name__ == "__main__":
    main()
