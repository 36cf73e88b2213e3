"""Cost of the labels of all layers' outputs in the decode steps of a real vLLM.

SmolLM2-135M on one CPU rank, eager, four requests at a time. Each way is a process of its own, since the hooks are set
when the model is loaded; processes take turns, and each answers the prompts several times. A step's time is that of a
whole answer by its number of steps, its prefill included on every side. Medians of all answers count.

    python benchmarks/bench_decode.py [--rounds 3] [--tokens 64]     (in an environment with vLLM)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aclcmp.labeling.engines.vllm_run import SETTINGS

MODEL = Path(__file__).resolve().parents[1] / ".trained" / "smollm2"
PROMPTS = ["The quick brown fox", "Once upon a time", "def main():", "In the beginning"]
ANSWERS = 4
LAYERS = r"^model\.layers\.\d+$"
WAYS = {
    "off": {},
    "full": {"ACLCMP_CAPTURE": "full"},
    "fingerprint": {"ACLCMP_CAPTURE": "fingerprint"},
    "stats": {"ACLCMP_CAPTURE": "stats"},
}
BARS = {"full": 2.0, "fingerprint": 1.3, "stats": 1.3}


def answer(tokens: int) -> None:
    """Answer the prompts several times in this process; print the seconds of each answer."""
    from vllm import LLM, SamplingParams

    llm = LLM(model=str(MODEL), dtype="bfloat16", enforce_eager=True, max_model_len=256, max_num_seqs=4, seed=0)
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    seconds = []
    for _ in range(ANSWERS + 1):
        begun = time.perf_counter()
        llm.generate(PROMPTS, sampling, use_tqdm=False)
        seconds.append(time.perf_counter() - begun)
    print(json.dumps(seconds[1:]))  # the first one warms up


def run(way: str, folder: str, tokens: int) -> list[float]:
    """Return the seconds of a step in each answer of a process of its own."""
    settings = dict(SETTINGS)
    if way != "off":
        settings |= WAYS[way] | {"ACLCMP_SHARD_DIR": folder, "ACLCMP_RUN_ID": "bench", "ACLCMP_LABELS": LAYERS}
    done = subprocess.run(
        [sys.executable, __file__, "--answer", "--tokens", str(tokens)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    return [seconds / tokens for seconds in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    """Let the ways take turns, and print their medians and ratios."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.answer:
        answer(given.tokens)
        return
    steps: dict[str, list[float]] = {way: [] for way in WAYS}
    sizes: dict[str, int] = dict.fromkeys(WAYS, 0)
    for _ in range(given.rounds):
        for way, found in steps.items():
            with tempfile.TemporaryDirectory() as folder:
                found += run(way, folder, given.tokens)
                sizes[way] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
                if way != "off" and not sizes[way]:
                    sys.exit(f"{way}: nothing was recorded; is aclcmp installed beside vLLM?")
    off = statistics.median(steps["off"])
    print(f"decode steps of 4 requests, 30 layers of SmolLM2 in bfloat16; medians of {len(steps['off'])} answers")
    for way, found in steps.items():
        median = statistics.median(found)
        bar = f"  (bar {BARS[way]})" if way in BARS else ""
        print(f"{way:12} {1000 * median:7.2f} ms a step  {median / off:5.2f} x off{bar}  {sizes[way] / 1e6:7.1f} MB")


if __name__ == "__main__":
    main()
