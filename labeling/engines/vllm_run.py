"""One rank of `aclcmp check`: vLLM answers prompts, and the plug-in labels what its model computes.

    python -m aclcmp.labeling.engines.vllm_run MODEL PROMPTS MAX_TOKENS [ENGINE OPTIONS]

The launcher starts a process for each rank, which vLLM takes as it is ("external_launcher").
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from aclcmp.labeling.engines.vllm import register
from aclcmp.labeling.engines.vllm_options import sets_compilation

SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Variables of vLLM's processes, where the user sets no others."""


def main(arguments: Sequence[str]) -> int:
    """Run the engine over all prompts; return the exit code."""
    model, prompts, most, *options = arguments
    set_environment()
    from vllm import LLM, SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    register()  # the entry point does so too, unless VLLM_PLUGINS leaves it out
    words = engine_arguments(model, int(os.environ.get("WORLD_SIZE", "1")), options)
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    engine = LLM.from_engine_args(EngineArgs.from_cli_args(parser.parse_args(words)))
    texts = [line for line in Path(prompts).read_text(encoding="utf-8").splitlines() if line.strip()]
    sampling = SamplingParams(temperature=0.0, max_tokens=int(most))
    for output in engine.generate(texts, sampling):
        if os.environ.get("RANK", "0") == "0":
            print(f"{output.request_id}: {output.outputs[0].text!r}", flush=True)
    return 0


def set_environment() -> None:
    """Set the variables of vLLM's process that are not set, before vLLM is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def engine_arguments(model: str, ranks: int, options: Sequence[str]) -> list[str]:
    """Return the options of the engine; it does not compile unless the user's say how."""
    own = ["--model", model, "--tensor-parallel-size", str(ranks)]
    own += ["--distributed-executor-backend", "external_launcher", "--seed", "0"]
    return [*own, *([] if any(map(sets_compilation, options)) else ["--enforce-eager"]), *options]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
