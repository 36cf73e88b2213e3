"""What the user sees while a run goes on: the ranks' lines, and progress of ranks and comparison.

On a terminal there are live bars; where output is piped, lines go out without colours and progress is told in plain
lines on stderr, one per 10 %. Nothing that a rank prints does anything to a terminal but colour it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from aclcmp.orchestrator.core.job import Placement
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.core.text import coloured, uncoloured, visible


class _Bars(Progress):
    """The bars, and lines below them."""

    below: Sequence[Text] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from self.below


class Screen:
    """The terminal during one command; a context manager. Implements the launcher's Watcher."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = _Bars(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._ranks: TaskID | None = None
        self._total = self._ended = 0
        self._compare: TaskID | None = None
        self._pairs = self._compared = self._bytes = 0
        self._begun = 0.0
        self._decile = 0

    def __enter__(self) -> Screen:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bars away from the live display; they stay as the last lines."""
        self._bars.stop()

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show on a terminal that something takes its time, before the bars are there."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(Text(text)):
            yield

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(Text(visible(text)), soft_wrap=True)

    def on_dump_setup(self, sentences: Sequence[str]) -> None:
        """What the launcher prepared for the library's dumps."""
        for sentence in sentences:
            self.say(sentence)

    def on_start(self, ranks: Sequence[Placement]) -> None:
        """The ranks run."""
        self._total, self._ended = len(ranks), 0
        self._ranks = self._bars.add_task("ranks", total=self._total, told=f"0/{self._total} finished")

    @property
    def room(self) -> tuple[int, bool] | None:
        """Width of the terminal and whether it knows ASCII alone; None where there is none."""
        if not self._console.is_terminal:
            return None
        return self._console.width, not self._console.encoding.startswith("utf")

    def show(self, below: Sequence[Text]) -> None:
        """Show these lines below the bars from now on."""
        self._bars.below = below

    def on_line(self, rank: int, text: str) -> None:
        """One line of a rank's output, with the rank before it; on a terminal in its colours."""
        if self._console.is_terminal:
            shown = Text.from_ansi(coloured(text))
            self._console.print(Text.assemble((f"[rank{rank}] ", "cyan"), shown), soft_wrap=True)
        else:
            encoding = self._console.encoding
            line = f"[rank{rank}] {uncoloured(text)}\n".encode(encoding, "replace").decode(encoding)
            try:
                self._console.file.write(line)
                self._console.file.flush()
            except BrokenPipeError:
                self._console.on_broken_pipe()

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None:
        """A rank has ended."""
        self._ended += 1
        if self._ranks is not None:
            told = f"{self._ended}/{self._total} {'finished' if state is RankState.FINISHED else 'ended'}"
            self._bars.update(self._ranks, completed=self._ended, told=told)

    def show_recorded(self, labels: int, nbytes: int) -> None:
        """What the ranks recorded is known."""
        told = f"{labels:,} labels, {decimal(nbytes)}"
        if self._ranks is not None:
            self._bars.update(self._ranks, told=f"{self._ended}/{self._total} ended   {told}")
        self._progress(f"recorded {told}")

    def add_pairs(self, pairs: int) -> None:
        """The comparison begins, or finds that so many more are to be compared."""
        self._pairs += pairs
        if self._compare is None:
            self._begun = time.monotonic()
            self._compare = self._bars.add_task("compare", total=pairs, told=f"0/{pairs:,}")
        self._bars.update(self._compare, total=self._pairs)

    def advance(self, pairs: int, nbytes: int) -> None:
        """So many more pairs and bytes are compared."""
        self._compared += pairs
        self._bytes += nbytes
        rate = self._bytes / max(time.monotonic() - self._begun, 1e-9)
        told = f"{self._compared:,}/{self._pairs:,}" + (f"   {decimal(int(rate))}/s" if self._bytes else "")
        if self._compare is not None:
            self._bars.update(self._compare, completed=self._compared, told=told)
        decile = 10 * self._compared // max(self._pairs, 1)
        if decile > self._decile:
            self._decile = decile
            self._progress(f"compared {told}")

    def _progress(self, text: str) -> None:
        if not self._console.is_terminal:
            with suppress(BrokenPipeError):
                sys.stderr.write(f"aclcmp: {text}\n")
