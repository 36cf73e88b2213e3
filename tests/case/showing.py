"""Cases made and shown in this process, which has loaded torch."""

import io
import os
import runpy
from contextlib import redirect_stdout
from pathlib import Path

from aclcmp.orchestrator.cli.app import run_cli

SMOLLM2 = Path(os.environ.get("ACLCMP_TRAINED", Path(__file__).parents[2] / ".trained")) / "smollm2"


def show_case(run: Path, label: str, model: Path, folder: Path) -> tuple[str, str]:
    """What `aclcmp case` says of a label, and what its script says."""
    said, shown = io.StringIO(), io.StringIO()
    with redirect_stdout(said):
        assert run_cli(["case", str(run), label, "--model", str(model), "--output", str(folder)]) == 0
    with redirect_stdout(shown):
        names = runpy.run_path(str(folder / "case.py"))
        names["main"]([])
    return said.getvalue(), shown.getvalue()
