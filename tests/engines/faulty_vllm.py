"""vLLM's part of `aclcmp check`, with faults: FAULTS names modules whose output it gets wrong, and how.

FAULTS=model.norm:scale,model.layers.1.mlp:zero python faulty_vllm.py MODEL PROMPTS MAX_TOKENS [ENGINE OPTIONS]
"""

import os
import sys
from typing import Any

from aclcmp.labeling.engines import vllm
from aclcmp.labeling.engines.vllm_run import main

watch = vllm._watch


def plant(runner: Any, model: Any) -> None:
    """Plant the faults before the model is watched."""
    for fault in filter(None, os.environ.get("FAULTS", "").split(",")):
        name, kind = fault.split(":")
        module = model.get_submodule(name)
        module.forward = wrong(module.forward, kind)
    watch(runner, model)


def wrong(forward: Any, kind: str) -> Any:
    def changed(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        first = (output[0] if isinstance(output, tuple) else output).clone()
        if kind == "zero":
            first[..., 3] = 0.0
        elif kind == "rank":  # on one rank alone
            first *= 1.1 if os.environ["RANK"] == "1" else 1.0
        else:
            first *= 1.05
        return (first, *output[1:]) if isinstance(output, tuple) else first

    return changed


if __name__ == "__main__":
    vllm._watch = plant
    sys.exit(main(sys.argv[1:]))
