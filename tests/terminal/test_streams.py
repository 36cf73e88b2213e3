"""Nothing that a run says steers the terminal, whoever prints it; and a terminal that goes ends no command."""

import io
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from aclcmp.orchestrator.cli.app import run_cli
from aclcmp.orchestrator.core.text import visible_lines
from aclcmp.orchestrator.terminal.console import report_console
from aclcmp.orchestrator.terminal.screen import Screen
from aclcmp.orchestrator.terminal.streams import harmless_streams
from tests.processes import as_in_a_terminal

HOSTILE = [
    "\x1b[2J", "\x1b]0;owned\x07", "\x1b]52;c;ZXZpbA==\x1b\\", "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "\x1bc",
    "\x9b2J", "\x9d0;owned\x9c", "\x00", "\x07\x08", "\u202eevil", "\u2066x\u2069", "\u200b", "\x7f", "\ud800", "a\rb",
    "\x1bP+q\x1b\\", "\x1b[31", "\x1b[?1049h", "\x1b[6n", "\u2028", "\x1b\x1b[31mm",
]  # fmt: skip


def steers(text: str) -> bool:
    return not text.replace("\n", "").replace("\t", "").isprintable()


@contextmanager
def a_terminal() -> Iterator[tuple[io.TextIOWrapper, list[str]]]:
    """A terminal to write to, and what came out of it when it was left."""
    master, slave = pty.openpty()
    got: list[str] = []

    def read() -> None:
        content = b""
        try:
            while piece := os.read(master, 1 << 16):
                content += piece
        except OSError:
            pass  # the other end is closed
        got.append(content.decode().replace("\r\n", "\n"))

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8", errors="backslashreplace") as stream:
        yield stream, got
    reader.join()
    os.close(master)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_rank_in_a_pipe(text: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with Screen(report_console(out)) as screen:
        screen.on_line(3, f"see {text}: \x1b[31mred\x1b[0m\t目录")
        screen.say(f"label {text}\nforged")
    out.seek(0)
    line, said = out.read().splitlines()
    assert not steers(line + said)
    assert line.startswith("[rank3] see ") and line.endswith(": red\t目录") and said.endswith("\\nforged")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_rank_on_a_terminal(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with a_terminal() as (stream, got):
        screen = Screen(report_console(stream))
        screen.on_line(3, f"see {text}: \x1b[31mred\x1b[0m")
        stream.flush()
    plain = got[0].replace("\x1b[36m", "").replace("\x1b[31m", "").replace("\x1b[0m", "")
    assert not steers(plain) and plain.startswith("[rank3] see ") and plain.endswith(": red\n")
    assert "\x1b[31mred\x1b[0m" in got[0]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_printed_on_a_console(text: str) -> None:
    out = io.StringIO()
    console = report_console(out)
    table = Table(f"head {text}")
    table.add_row(text)
    for each in (text, Text(text), table):
        console.print(each)
    with console.status(text):
        console.print("on")
    assert not steers(out.getvalue()) and "on" in out.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_written(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with harmless_streams(), harmless_streams():
        print("out", text)
        sys.stderr.writelines(["err\t", text, "\n"])
        report_console(sys.stdout).print(Text(text))
    out, err = capsys.readouterr()
    assert not steers(out + err) and out.startswith("out ") and err.startswith("err\t") and "\n" in out


def test_an_error_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["report", "\x1b[2Jabsent"]) == 2
    assert "\\x1b[2Jabsent is not a folder" in capsys.readouterr().err


def test_lines_and_tabs_stay() -> None:
    assert visible_lines("a\tb\nc\r\nd ✗ 目录\n") == "a\tb\nc\nd ✗ 目录\n"
    assert visible_lines("a\x00\x1b\rb") == "a\\x00\\x1b\\rb"


_WRITES = """
import sys, os
from aclcmp.orchestrator.terminal.console import report_console
from aclcmp.orchestrator.terminal.streams import harmless_streams
with harmless_streams():
    print("ready", flush=True)
    sys.stdin.read()
    for number in range(3):
        print("gone", flush=True)
        print("gone", file=sys.stderr, flush=True)
        report_console(sys.stdout).print("gone")
open(sys.argv[1], "w").write("end")
"""


def test_a_terminal_that_goes_ends_nothing(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITES, str(tmp_path / "end")], stdin=subprocess.PIPE, stdout=slave, stderr=slave,
        preexec_fn=as_in_a_terminal,
    )  # fmt: skip
    os.close(slave)
    assert b"ready" in os.read(master, 100)
    os.close(master)
    process.communicate()
    assert process.returncode == 0 and (tmp_path / "end").read_text() == "end"
