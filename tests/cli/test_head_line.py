"""The first line of a run: what is launched where."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from aclcmp.orchestrator.cli.commands import print_head
from aclcmp.orchestrator.core.job import Job
from aclcmp.orchestrator.launch.placement import Spread
from aclcmp.orchestrator.run.directory import RunDir


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (Spread((4,)), "4 ranks on 1 host (npu)"),
        (Spread((2, 2)), "4 ranks on 2 hosts (npu)"),
        (Spread((4,), divisible=True), "4 ranks (npu)"),  # Ray will choose the hosts
    ],
)
def test_hosts_are_those_of_the_ranks(how: Spread, words: str, tmp_path: Path) -> None:
    shown = StringIO()
    print_head(Console(file=shown), Job(("true",), tmp_path, ranks=4), "npu", how, "local Ray", RunDir(tmp_path, "run"))
    assert f"   {words}   local Ray   run {tmp_path}" in shown.getvalue()
