"""Ctrl-C beside imports, in a process of its own: none is broken off while another thread may wait for it."""

import subprocess
import sys
from pathlib import Path

_SLOW = """
import signal, time
signal.raise_signal(signal.SIGINT)
time.sleep(0.3)
done = True
"""

_MAIN = """
import threading, time
from aclcmp.orchestrator.interrupts import spare_imports

spare_imports()
if {threads}:
    threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
try:
    import slow
    time.sleep(10)
    print("never interrupted")
except KeyboardInterrupt:
    print("imported" if "slow" in globals() and slow.done else "broken off")
"""


def _told(folder: Path, threads: bool) -> str:
    (folder / "slow.py").write_text(_SLOW)
    (folder / "main.py").write_text(_MAIN.format(threads=threads))
    return subprocess.run(
        [sys.executable, "main.py"], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_ctrl_c_waits_for_an_import_that_another_thread_may_need(tmp_path: Path) -> None:
    assert _told(tmp_path, threads=True) == "imported"


def test_ctrl_c_ends_at_once_where_nobody_else_runs(tmp_path: Path) -> None:
    assert _told(tmp_path, threads=False) == "broken off"
