"""The whole way, as a user goes it: two programs launched apart, then one command, and not a single annotation."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.models.running import HERE, Ranks
from tests.recorded import read_report

pytestmark = [pytest.mark.model, pytest.mark.ray]

SMALL = ("--untold", "--layers", "2", "--tasks", "1")


def test_one_process_and_eight_tensor_parallel_ranks(aclcmp: Command, ranks: Ranks, tmp_path: Path) -> None:
    script = f"python {HERE / 'transformers_ranks.py'} actual --tp 8 {' '.join(SMALL)}"
    done = aclcmp("--exec", script, "--ranks", "8", "--no-compare", "--output", "eight")
    assert done.code == 0, done
    ranks.run(tmp_path / "one", "transformers_ranks.py", "golden", *SMALL)
    done = aclcmp("compare", "one", "eight", "--output", "report")
    assert done.code == 0 and "layout inferred from the shapes of all ranks" in done.out, done
    report = read_report(tmp_path / "report")
    assert report["coverage"]["complete"] and report["coverage"]["compared"] == 8 * len(report["labels"]) == 8 * 33
