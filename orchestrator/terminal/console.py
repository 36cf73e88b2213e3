"""Consoles that print for people, on a terminal or into a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from aclcmp.orchestrator.core.text import visible_lines
from aclcmp.orchestrator.terminal.streams import for_rich, to_nowhere

_PIPED_WIDTH = 120


class _Console(Console):
    """Console whose reader may leave (`| head`): later output is dropped, and the run goes on.

    Only rich's own control sequences reach the terminal.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        to_nowhere(self.file.fileno())

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible_lines(segment.text))


def text_console(text: StringIO) -> Console:
    """Return a console that writes into a text what a pipe would get: no colours, whatever the environment asks for."""
    return _console(text, force_terminal=False)


def report_console(stream: TextIO) -> Console:
    """Return a console for `stream`. Output that is no terminal has no colours, and lines of 120 cells."""
    return _console(stream)


def _console(stream: TextIO, *, force_terminal: bool | None = None) -> Console:
    terminal = stream.isatty()
    return _Console(
        file=for_rich(stream),
        width=None if terminal else _PIPED_WIDTH,
        highlight=False,
        emoji=False,
        markup=False,
        force_terminal=force_terminal,
        force_jupyter=False,  # in a notebook rich would show what is written to a stream as an output of the cell
    )
