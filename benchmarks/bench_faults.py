"""Faults of a run over two hosts: seconds until the user is told, all ranks are gone, and the report is there.

    python benchmarks/bench_faults.py [rounds]

The two hosts are network namespaces (needs root). Four ranks label every second; ranks 2 and 3 are on the second host.
Prints a table in Markdown with the range of all rounds.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.faults.kinds import ALL, CABLE, Fault, Times, let_happen
from tests.faults.scene import scene
from tests.netns import why_not


def times(fault: Fault) -> tuple[Times, float | None]:
    """Let the fault happen once; return its times, and how long ranks live on a host that cannot be reached."""
    with tempfile.TemporaryDirectory() as folder, scene(Path(folder)) as stage:
        found = let_happen(stage, fault, "out")
        return found, stage.wait_until_empty(*stage.hosts) if fault is CABLE else None


def span(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"


def main() -> None:
    if reason := why_not():
        print(f"not measured: {reason}")
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("| what happens | told after (s) | ranks gone after (s) | report after (s) | exit code |")
    print("|---|---|---|---|---|")
    for fault in ALL:
        found = [times(fault) for _ in range(rounds)]
        columns = [span([getattr(each, name) for each, _ in found]) for name in ("told", "stopped", "reported")]
        codes = ", ".join(sorted({str(each.code) for each, _ in found if each.code is not None}))
        print(f"| {fault.name} | {' | '.join(columns)} | {codes} |", flush=True)
        if any(left is not None for _, left in found):
            print(f"  on the host that cannot be reached ranks are gone after {span([left for _, left in found])} s")


if __name__ == "__main__":
    main()
