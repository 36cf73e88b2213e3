"""Screen during a run: the ranks' output, and the progress of ranks and comparison.

On a terminal there are live bars. Where output is piped, lines have no colours, and progress goes to stderr as one
plain line per 10 %. Of the control sequences that a rank prints only colours reach a terminal.
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
from aclcmp.orchestrator.core.text import keep_colours, strip_colours, visible


class _Bars(Progress):
    """Progress bars, with lines below them."""

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
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._ranks: TaskID | None = None
        self._total = self._ended = 0
        self._compare: TaskID | None = None
        self._pairs = self._compared = self._bytes = 0
        self._compare_start = 0.0
        self._decile = 0

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
        """Show how many labels and bytes the ranks have recorded."""
        text = f"{labels:,} labels, {decimal(nbytes)}"
        if self._ranks is not None:
            self._bars.update(self._ranks, text=f"{self._ended}/{self._total} ended   {text}")
        self._print_progress(f"recorded {text}")

    def add_pairs(self, pairs: int) -> None:
        """Add pairs to the bar of the comparison; the first call makes the bar."""
        self._pairs += pairs
        if self._compare is None:
            self._compare_start = time.monotonic()
            self._compare = self._bars.add_task("compare", total=pairs, text=f"0/{pairs:,}")
        self._bars.update(self._compare, total=self._pairs)

    def advance(self, pairs: int, nbytes: int) -> None:
        """Advance the bar of the comparison by so many pairs and bytes."""
        self._compared += pairs
        self._bytes += nbytes
        rate = self._bytes / max(time.monotonic() - self._compare_start, 1e-9)
        text = f"{self._compared:,}/{self._pairs:,}" + (f"   {decimal(int(rate))}/s" if self._bytes else "")
        if self._compare is not None:
            self._bars.update(self._compare, completed=self._compared, text=text)
        decile = 10 * self._compared // max(self._pairs, 1)
        if decile > self._decile:
            self._decile = decile
            self._print_progress(f"compared {text}")

    def _print_progress(self, text: str) -> None:
        if not self._console.is_terminal:
            with suppress(BrokenPipeError):
                sys.stderr.write(f"aclcmp: {text}\n")
