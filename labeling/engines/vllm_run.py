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

_DEFAULTS = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
_ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}


def main(arguments: Sequence[str]) -> int:
    """Run the engine over all prompts; return the exit code."""
    model, prompts, most, *options = arguments
    for name, value in (_DEFAULTS | _ON_CPU).items():
        os.environ.setdefault(name, value)
    from vllm import LLM, SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    register()  # the entry point does so too, unless VLLM_PLUGINS leaves it out
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    own = [
        "--model",
        model,
        "--tensor-parallel-size",
        str(ranks),
        "--distributed-executor-backend",
        "external_launcher",
    ]
    if "--compilation-config" not in options and "-cc" not in options:
        own.append("--enforce-eager")
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    engine = LLM.from_engine_args(EngineArgs.from_cli_args(parser.parse_args([*own, "--seed", "0", *options])))
    texts = [line for line in Path(prompts).read_text(encoding="utf-8").splitlines() if line.strip()]
    sampling = SamplingParams(temperature=0.0, max_tokens=int(most))
    for output in engine.generate(texts, sampling):
        if os.environ.get("RANK", "0") == "0":
            print(f"{output.request_id}: {output.outputs[0].text!r}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
