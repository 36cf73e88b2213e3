"""Screen during a run: the ranks' output, and the progress of ranks and comparison.

On a terminal there are live bars. Where output is piped, lines have no colours, and progress goes to stderr as one
plain line per 10 %. Of the control sequences that a rank prints only colours reach a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from types import TracebackType

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from aclcmp.orchestrator.core.job import Placement
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.core.text import keep_colours, strip_colours, visible
from aclcmp.orchestrator.terminal.console import text_console


class _Bars(Progress):
    """Progress bars, with lines below them."""

    below: Sequence[Text] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from self.below


@dataclass(slots=True)
class _Count:
    """How many pairs are done, of how many, and the bar that shows it."""

    name: str
    verb: str
    bar: TaskID | None = None
    total: int = 0
    done: int = 0
    nbytes: int = 0
    start: float = 0.0
    decile: int = 0


class Screen:
    """The terminal during one command; a context manager. Implements the launcher's Watcher."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = _Bars(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24 if console.width >= 80 else 10),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._ranks: TaskID | None = None
        self._total = self._ended = 0
        self._comparison = _Count("compare", "compared")
        self._second_look = _Count("look", "looked again at")

    def __enter__(self) -> Screen:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the live display; the bars stay as the last lines."""
        self._bars.stop()

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show on a terminal that something takes time, before the bars are there."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(Text(text)):
            yield

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(Text(visible(text)), soft_wrap=True)

    def on_dump_setup(self, sentences: Sequence[str]) -> None:
        """Print how the launcher prepared the library's dumps."""
        for sentence in sentences:
            self.say(sentence)

    def on_start(self, ranks: Sequence[Placement]) -> None:
        """Add the bar of the ranks."""
        self._total, self._ended = len(ranks), 0
        self._ranks = self._bars.add_task("ranks", total=self._total, text=f"0/{self._total} finished")

    @property
    def room(self) -> tuple[int, bool] | None:
        """Width of the terminal, and whether it can show only ASCII; None if the output is no terminal."""
        if not self._console.is_terminal:
            return None
        return self._console.width, not self._console.encoding.startswith("utf")

    def show(self, below: Sequence[Text]) -> None:
        """Show these lines below the bars from now on."""
        self._bars.below = below

    def on_line(self, rank: int, text: str) -> None:
        """Print one line of a rank's output behind the rank's number, on a terminal in its colours."""
        if self._console.is_terminal:
            shown = Text.from_ansi(keep_colours(text))
            self._console.print(Text.assemble((f"[rank{rank}] ", "cyan"), shown), soft_wrap=True)
        else:
            encoding = self._console.encoding
            line = f"[rank{rank}] {strip_colours(text)}\n".encode(encoding, "replace").decode(encoding)
            try:
                self._console.file.write(line)
                self._console.file.flush()
            except BrokenPipeError:
                self._console.on_broken_pipe()

    def on_end(self, rank: int, state: RankState, exit_code: int | None) -> None:
        """Advance the bar of the ranks."""
        self._ended += 1
        if self._ranks is not None:
            text = f"{self._ended}/{self._total} {'finished' if state is RankState.FINISHED else 'ended'}"
            self._bars.update(self._ranks, completed=self._ended, text=text)

    def show_label_totals(self, labels: int, nbytes: int) -> None:
        """Show how many labels and bytes the ranks have recorded; no bytes of labels that only name dumped files."""
        text = f"{labels:,} label{'s' * (labels != 1)}" + (f", {decimal(nbytes)}" if nbytes else "")
        if self._ranks is not None:
            self._bars.update(self._ranks, text=f"{self._ended}/{self._total} ended   {text}")
        self._print_progress(f"recorded {text}")

    def add_pairs(self, pairs: int) -> None:
        """Add pairs to the bar of the comparison; the first call makes the bar."""
        self._add(self._comparison, pairs)

    def advance(self, pairs: int, nbytes: int) -> None:
        """Advance the bar of the comparison by so many pairs and bytes."""
        self._advance(self._comparison, pairs, nbytes)

    def add_looks(self, pairs: int) -> None:
        """Add pairs that do not match to the bar of the second look; the first call makes the bar."""
        self._add(self._second_look, pairs)

    def advance_looks(self, pairs: int) -> None:
        """Advance the bar of the second look by so many pairs."""
        self._advance(self._second_look, pairs)

    def _add(self, count: _Count, pairs: int) -> None:
        count.total += pairs
        if count.bar is None:
            count.start = time.monotonic()
            count.bar = self._bars.add_task(count.name, text=f"0/{pairs:,}")
        self._bars.update(count.bar, total=count.total)

    def _advance(self, count: _Count, pairs: int, nbytes: int = 0) -> None:
        count.done += pairs
        count.nbytes += nbytes
        rate = count.nbytes / max(time.monotonic() - count.start, 1e-9)
        text = f"{count.done:,}/{count.total:,}" + (f"   {decimal(int(rate))}/s" if count.nbytes else "")
        if count.bar is not None:
            self._bars.update(count.bar, completed=count.done, text=text)
        decile = 10 * count.done // max(count.total, 1)
        if decile > count.decile:
            count.decile = decile
            self._print_progress(f"{count.verb} {text}")

    def _print_progress(self, text: str) -> None:
        if not self._console.is_terminal:
            with suppress(BrokenPipeError):
                sys.stderr.write(f"aclcmp: {text}\n")


class QuietScreen(Screen):
    """Screen that shows nothing, for a comparison inside the user's process."""

    def __init__(self) -> None:
        super().__init__(text_console(StringIO()))

    def _print_progress(self, text: str) -> None:
        pass
