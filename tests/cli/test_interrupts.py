"""Ctrl-C at bad moments, in a process of its own: no import is broken off, and none is swallowed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE, as_in_a_terminal

_SLOW = """
import signal, time
signal.raise_signal(signal.{number})
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

_VALIDATED = """
import signal, time
from typing import Annotated, Any
from pydantic import BeforeValidator, TypeAdapter
from aclcmp.orchestrator.interrupts import defer_interrupts

defer_interrupts()

def parse(value):
    signal.raise_signal(signal.{number})
    return value

try:
    print("parsed", TypeAdapter(Annotated[Any, BeforeValidator(parse)]).validate_python(3))
    time.sleep(10)
    print("never interrupted")
except KeyboardInterrupt:
    print("interrupted")
"""

_HELD = """
import signal
from aclcmp.orchestrator.interrupts import defer_interrupts

defer_interrupts()

class Loud:
    def __del__(self):
        signal.raise_signal(signal.{number})
        print("deleted")

try:
    Loud()
    import time
    time.sleep(10)
    print("never interrupted")
except KeyboardInterrupt:
    print("interrupted")
"""


def _run(folder: Path, script: str, *how: str) -> subprocess.CompletedProcess[str]:
    (folder / "main.py").write_text(script)
    return subprocess.run(
        [sys.executable, *(how or ["main.py"])],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=as_in_a_terminal,
    )


@pytest.mark.parametrize(
    ("threads", "number"), [(True, "SIGINT"), (False, "SIGINT"), (False, "SIGTERM"), (False, "SIGHUP")]
)
def test_ctrl_c_waits_for_an_import(tmp_path: Path, threads: bool, number: str) -> None:
    (tmp_path / "slow.py").write_text(_SLOW.format(number=number))
    done = _run(tmp_path, _MAIN.format(threads=threads))
    assert done.stdout.strip() == "imported", done


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_ctrl_c_waits_for_what_would_swallow_it(tmp_path: Path, number: str) -> None:
    done = _run(tmp_path, _HELD.format(number=number))
    assert done.stdout.split() == ["deleted", "interrupted"] and done.stderr == "", done


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_ctrl_c_waits_for_a_validation(tmp_path: Path, number: str) -> None:
    done = _run(tmp_path, _VALIDATED.format(number=number))
    assert done.stdout.splitlines() == ["parsed 3", "interrupted"] and done.stderr == "", done


_AGAIN = """
import signal, time
from aclcmp.orchestrator.interrupts import defer_interrupts

defer_interrupts()
for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
    try:
        signal.raise_signal(number)
        time.sleep(0.2)
        print("on")
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_a_second_sighup_is_the_same_one(tmp_path: Path) -> None:
    """The kernel sends one to all of a terminal that goes, the shell another to its jobs."""
    assert _run(tmp_path, _AGAIN).stdout.split() == ["interrupted", "on", "interrupted"]


def test_nohup(tmp_path: Path) -> None:
    (tmp_path / "again.py").write_text(_AGAIN)
    done = subprocess.run(
        ["nohup", sys.executable, "again.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["on", "on", "interrupted"]


_TEXT = """
import signal, sys, time
from aclcmp.orchestrator.interrupts import defer_interrupts, ignore_interrupts

defer_interrupts()
try:
    eval("signal.raise_signal(signal.SIGINT)")
    time.sleep(10)
    print("never interrupted")
except KeyboardInterrupt:
    ignore_interrupts()
    sys.exit(3)
"""


def test_ctrl_c_waits_for_code_in_a_string(tmp_path: Path) -> None:
    """Python ends by SIGINT, not by the exit code, under `-m`, once a KeyboardInterrupt left a string's code."""
    done = _run(tmp_path, _TEXT, "-m", "main")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


_EARLY = """
import signal, sys

class Early:
    def find_spec(self, name, path=None, target=None):
        if name == "aclcmp.orchestrator.interrupts":
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

from aclcmp.__main__ import main
sys.meta_path.insert(0, Early())
main()
"""


def test_ctrl_c_before_interrupts_are_deferred(tmp_path: Path) -> None:
    done = _run(tmp_path, _EARLY)
    assert (done.returncode, done.stderr) == (3, "aclcmp: error: interrupted\n"), done
