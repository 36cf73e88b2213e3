"""Switches of vLLM that a bisection tries: options that change how the engine computes, not what.

    python -m aclcmp.labeling.engines.vllm_switches MODEL PROMPTS MAX_TOKENS [ENGINE OPTIONS]

The arguments are those of `vllm_run`. It prints a line for each switch that this version of vLLM takes and that
changes something beside these options.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from aclcmp.labeling.engines.vllm_options import sets_compilation
from aclcmp.labeling.engines.vllm_run import engine_arguments, set_environment

SWITCH = "switch: "
"""Begins each line with a switch."""
_PLAIN_BACKEND = "TRITON_ATTN"
"""An attention backend of CUDA devices that no library of kernels stands behind."""


def main(arguments: Sequence[str]) -> int:
    """Print the switches; return the exit code."""
    model, _, _, *options = arguments
    set_environment()
    for switch in known_switches(model, options):
        print(f"{SWITCH}{switch}", flush=True)
    return 0


def known_switches(model: str, options: Sequence[str]) -> Iterator[str]:
    """Yield the switches that this vLLM takes, as words to append to the options, quoted as for a shell.

    It takes all of them together, too.
    """
    known, before = list(options), _read_options(engine_arguments(model, 1, options))
    for words in _candidates(options):
        after = _read_options(engine_arguments(model, 1, [*known, *words]))
        if after is not None and after != before:
            known, before = [*known, *words], after
            yield shlex.join(words)


def _candidates(options: Sequence[str]) -> Iterator[list[str]]:
    """Yield the switches: custom operators, kernels, attention, compilation, prefix cache, chunks, batches, order."""
    eager = [] if any(map(sets_compilation, options)) else ["--enforce-eager"]  # else the next one compiles the model
    yield [*eager, '-cc.custom_ops=["none"]']
    if names := _operators():
        yield ["--ir-op-priority", json.dumps({name: ["native"] for name in names})]
    yield from (["--attention-backend", name] for name in _backends())
    yield ["--enforce-eager"]
    yield ["--no-enable-prefix-caching"]
    yield ["--no-enable-chunked-prefill"]
    yield ["--max-num-seqs", "1"]
    yield ["--no-async-scheduling"]


def _operators() -> list[str]:
    """Return the operators of which vLLM has several kernels; "native" is that of torch."""
    try:
        from vllm.config.kernel import IrOpPriorityConfig
    except ImportError:
        return []
    return list(IrOpPriorityConfig.__dataclass_fields__)


def _backends() -> list[str]:
    """Return an attention backend without kernels of a library, where the platform has a choice."""
    from vllm.platforms import current_platform

    return [_PLAIN_BACKEND] if current_platform.is_cuda_alike() else []


def _read_options(words: Sequence[str]) -> Any:
    """Return an engine's options; None for words that it does not take, or not together."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    with contextlib.suppress(SystemExit, Exception), contextlib.redirect_stderr(io.StringIO()):
        options = EngineArgs.from_cli_args(parser.parse_args(words))
        copy.deepcopy(options).create_engine_config()
        return options
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
