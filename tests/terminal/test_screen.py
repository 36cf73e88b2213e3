"""What the screen says in a pipe while a command works."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from aclcmp.orchestrator.terminal.screen import Screen


@pytest.mark.parametrize(
    ("labels", "nbytes", "words"), [(3, 0, "recorded 3 labels\n"), (1, 2000, "recorded 1 label, 2.0 kB\n")]
)
def test_labels_of_dumped_files_have_no_bytes(
    labels: int, nbytes: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Screen(Console(file=io.StringIO())).show_label_totals(labels, nbytes)
    assert capsys.readouterr().err.endswith(words)
