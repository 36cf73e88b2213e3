"""vLLM's server, which starts its engine and its workers as processes of their own, and ends them as it likes."""

import ast
import os
import subprocess
from pathlib import Path

import pytest

from tests.engines.engine_runs import run
from tests.processes import PATIENCE
from tests.recorded import read_report

pytestmark = pytest.mark.engine


def test_a_server_with_workers_of_its_own(engine: Path, smollm2: Path, tmp_path: Path) -> None:
    """Its three workers are ranks of the report, though the launcher started one process."""
    command = f"{engine}/python {Path(__file__).parent}/serve.py {smollm2} 3"
    served = run(engine, tmp_path, "--exec", command, "--ranks", "1", "--no-compare", "--output", "served")
    assert served.returncode == 0 and served.stdout.count("answered") == 2, served
    done = run(engine, tmp_path, "golden", "served", "--model", str(smollm2))
    assert done.returncode == 0, done.stdout[-3000:]
    found = read_report(tmp_path / "served")
    assert found["verdict"] == "match" and found["coverage"]["compared"] == 3 * 45
    assert all(list(label["ranks"]) == ["0", "1", "2"] for label in found["labels"])


_COPIED = """
from aclcmp.labeling.engines.vllm import register

register()
from vllm.ray.ray_env import get_env_vars_to_copy

print({"ACLCMP_SHARD_DIR", "ACLCMP_RUN_ID", "VLLM_USE_RAY_X", "OTHER_A"} & get_env_vars_to_copy())
"""


def test_workers_of_rays_executor_get_our_variables(engine: Path, tmp_path: Path) -> None:
    """Ray's executor does not run on CPUs: what its workers would get is asked from its own function."""
    environ = os.environ | {
        "ACLCMP_SHARD_DIR": str(tmp_path),
        "ACLCMP_RUN_ID": "r",
        "OTHER_A": "1",
        "VLLM_RAY_EXTRA_ENV_VAR_PREFIXES_TO_COPY": "OTHER_",
    }
    done = subprocess.run(
        [engine / "python", "-c", _COPIED], env=environ, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == {"ACLCMP_SHARD_DIR", "ACLCMP_RUN_ID", "OTHER_A"}, done
