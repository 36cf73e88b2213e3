"""Ctrl-C at bad moments, in a process of its own: no import is broken off, and none is swallowed."""

import subprocess
import sys
from pathlib import Path

import pytest

_SLOW = """
import signal, time
signal.raise_signal(signal.SIGINT)
time.sleep(0.3)
done = True
"""

_MAIN = """
import threading, time
from aclcmp.orchestrator.interrupts import defer_interrupts

defer_interrupts()
if {threads}:
    threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
try:
    import slow
    time.sleep(10)
    print("never interrupted")
except KeyboardInterrupt:
    print("imported" if "slow" in globals() and slow.done else "broken off")
"""

_HELD = """
import signal, weakref
from aclcmp.orchestrator.interrupts import defer_interrupts, held

class Thing:
    pass

defer_interrupts()
try:
    with held():
        thing = Thing()
        kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
        del thing
        print("finished")
    print("never interrupted")
except KeyboardInterrupt:
    print("interrupted")

class Loud:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        print("deleted")

try:
    Loud()
    import time
    time.sleep(10)
    print("never interrupted")
except KeyboardInterrupt:
    print("interrupted")
"""


def _told(folder: Path, threads: bool) -> str:
    (folder / "slow.py").write_text(_SLOW)
    (folder / "main.py").write_text(_MAIN.format(threads=threads))
    return subprocess.run(
        [sys.executable, "main.py"], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize("threads", [True, False])
def test_ctrl_c_waits_for_an_import(tmp_path: Path, threads: bool) -> None:
    assert _told(tmp_path, threads) == "imported"


def test_ctrl_c_waits_for_what_would_swallow_it(tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(_HELD)
    done = subprocess.run([sys.executable, "held.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["finished", "interrupted", "deleted", "interrupted"] and done.stderr == "", done
