"""vLLM's server, which starts its engine and its workers as processes of their own, and ends them as it likes."""

from pathlib import Path

import pytest

from tests.engines.engine_runs import run
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
