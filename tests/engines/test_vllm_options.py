"""Options that set compilation, as the parser of vLLM 0.32.0 takes them."""

import pytest

from aclcmp.labeling.engines.vllm_options import sets_compilation
from aclcmp.labeling.engines.vllm_run import engine_arguments

SETTING = ["-O3", "-O", "-O=3", "-O.mode=3", "-cc", '-cc={"mode": 3}', "-cc.mode=3", "--compilation-config"]
SETTING += ["--compilation_config", "--compilation-config.mode=3", "--compilation_config.custom_ops+", "--compilation"]
SETTING += ['--compilation-config={"mode":\n3}', "--optimization-level", "--optimization_level=2", "--enforce"]
SETTING += ["--enforce-eager", "--enforce_eager", "--no-enforce-eager", "--no_enforce_eager"]
OTHERS = ["--dtype", "bfloat16", "-tp", "-c", "--config", "--seed=0", "--override-generation-config.x", "--no", "O3"]


@pytest.mark.parametrize("option", SETTING)
def test_the_engine_compiles_as_the_user_says(option: str) -> None:
    assert sets_compilation(option)
    words = engine_arguments("model", 2, [option, "x"])
    assert words[-2:] == [option, "x"] and "--enforce-eager" not in words[:-2]


@pytest.mark.parametrize("option", OTHERS)
def test_it_does_not_compile_otherwise(option: str) -> None:
    assert not sets_compilation(option)
    words = engine_arguments("model", 2, [option])
    assert words[-2:] == ["--enforce-eager", option]
    assert words[:4] == ["--model", "model", "--tensor-parallel-size", "2"]
