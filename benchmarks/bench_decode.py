"""Cost of labels in the decode steps of a real vLLM: of all layers' outputs, or of what the KV cache holds.

SmolLM2-135M on one CPU rank, eager, four requests at a time. In each process every other forward is labelled, so that
both kinds of steps see the same machine, however busy it is; steps without labels run the hooks, which return at once.
The steps of a process without the plug-in show what those cost. Medians of all steps count. Where the cache is
labelled, every forward names its rows, and every other one reads the cache; what is new is of two steps then.

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
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

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
    "cache": {"ACLCMP_KV_CACHE": "1", "ACLCMP_LABELS": r"_cache$"},
}
BARS = {"full": 2.0, "fingerprint": 1.3, "stats": 1.3, "cache": 3.0}


def answer(tokens: int) -> None:
    """Answer the prompts several times in this process; print the seconds of its steps without and with labels."""
    from vllm import LLM, SamplingParams

    from aclcmp.labeling.engines.vllm import _NamedForwards

    forwards, name_rows, label_cache = [0], _NamedForwards.of_batch, _NamedForwards.label_cache
    of_cache = "ACLCMP_KV_CACHE" in os.environ

    def name_every_other(self: _NamedForwards, read_batch: Any) -> AbstractContextManager[None]:
        forwards[0] += 1
        return name_rows(self, read_batch) if of_cache or forwards[0] % 2 else nullcontext()

    def label_every_other(self: _NamedForwards) -> None:
        if forwards[0] % 2:
            label_cache(self)

    patch.object(_NamedForwards, "of_batch", name_every_other).start()
    patch.object(_NamedForwards, "label_cache", label_every_other).start()
    llm = LLM(model=str(MODEL), dtype="bfloat16", enforce_eager=True, max_model_len=2048, max_num_seqs=4, seed=0)
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    llm.generate(PROMPTS, sampling, use_tqdm=False)  # the first answer warms up
    seconds: tuple[list[float], list[float]] = ([], [])
    step = llm.llm_engine.step

    def timed_step() -> Any:
        begun = time.perf_counter()
        result = step()
        seconds[forwards[0] % 2].append(time.perf_counter() - begun)
        return result

    llm.llm_engine.step = timed_step
    for _ in range(ANSWERS):
        llm.generate(PROMPTS, sampling, use_tqdm=False)
    print(json.dumps(seconds))


def run(way: str, folder: str, tokens: int) -> tuple[list[float], list[float]]:
    """Return the seconds of the steps of a process, without and with labels; all are without them where it is off."""
    settings = dict(SETTINGS)
    if way != "off":
        settings |= {"ACLCMP_SHARD_DIR": folder, "ACLCMP_RUN_ID": "bench", "ACLCMP_LABELS": LAYERS} | WAYS[way]
    done = subprocess.run(
        [sys.executable, __file__, "--answer", "--tokens", str(tokens)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    without, labelled = json.loads(done.stdout.splitlines()[-1])
    return without, labelled


def main() -> None:
    """Let the ways take turns, and print their medians and ratios."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--way", action="append", choices=list(WAYS), help="Only these; repeatable.")
    options.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.answer:
        answer(given.tokens)
        return
    ways = given.way or list(WAYS)
    steps: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
    sizes: dict[str, int] = dict.fromkeys(ways, 0)
    for _ in range(given.rounds):
        for way, (without, labelled) in steps.items():
            with tempfile.TemporaryDirectory() as folder:
                for found, more in zip((without, labelled), run(way, folder, given.tokens), strict=True):
                    found += more
                sizes[way] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
                if way != "off" and not sizes[way]:
                    sys.exit(f"{way}: nothing was recorded; is aclcmp installed beside vLLM?")
    print(f"decode steps of 4 requests, 30 layers of SmolLM2 in bfloat16; {given.rounds} processes of each way")
    if "off" in ways:
        print(f"{'off':12} {1000 * statistics.median(steps['off'][0]):7.2f} ms a step")
    for way, bar in ((way, BARS[way]) for way in ways if way in BARS):
        before, after = map(statistics.median, steps[way])
        print(
            f"{way:12} {1000 * before:7.2f} ms a step, {1000 * after:7.2f} labelled  "
            f"{after / before:5.2f} x  (bar {bar})  {sizes[way] / 1e6:7.1f} MB"
        )


if __name__ == "__main__":
    main()
