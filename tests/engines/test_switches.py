"""The switches that a real vLLM tells: what it takes, together, beside the options of a run."""

import shlex
import sys
from pathlib import Path

import pytest

from aclcmp.orchestrator.engines.switches import engine_switches
from aclcmp.orchestrator.errors import UsageError

pytestmark = pytest.mark.engine

MODULE = "aclcmp.labeling.engines.vllm_run"


def told(engine: Path, monkeypatch: pytest.MonkeyPatch, model: Path, options: str) -> list[str]:
    monkeypatch.setattr(sys, "executable", str(engine / "python"))
    command = ["python", "-m", MODULE, str(model), "prompts.txt", "4", *shlex.split(options)]
    return [" ".join(shlex.split(switch)) for switch in engine_switches("vllm", command)]


def test_switches_fit_the_options(engine: Path, smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = told(engine, monkeypatch, smollm2, "--dtype float32")
    assert "--no-enable-prefix-caching" in plain and "--max-num-seqs 1" in plain
    assert '--enforce-eager -cc.custom_ops=["none"]' in plain, "an eager model must not be compiled by a switch"
    assert "--enforce-eager" not in plain, "it changes nothing"
    assert any(switch.startswith("--ir-op-priority") and "native" in switch for switch in plain)
    small = told(engine, monkeypatch, smollm2, "--dtype float32 --max-num-batched-tokens 32 --max-model-len 256")
    assert "--no-enable-chunked-prefill" not in small, "vLLM refuses it beside these options"
    compiled = told(engine, monkeypatch, smollm2, "--dtype float32 -O3 --no-enable-prefix-caching")
    assert "--enforce-eager" in compiled and "--no-enable-prefix-caching" not in compiled
    with pytest.raises(UsageError, match="its switches are not known"):
        told(engine, monkeypatch, smollm2, "--no-such-option")
