"""The run directory. The names of its files are defined here alone (those of shards in labeling.shard.shard_files)."""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aclcmp.orchestrator.core.text import shown_path
from aclcmp.orchestrator.errors import UsageError

RUNS = "aclcmp-runs"
"""Folder of the runs of a working directory, where nothing else is told."""
LATEST = "latest"
"""Link in it to the newest run."""


@dataclass(frozen=True, slots=True)
class RunDir:
    """The files of one run. `root` is absolute."""

    root: Path
    run_id: str

    @staticmethod
    def check_vacant(output: Path | None) -> None:
        """Raise UsageError when `output` exists and is not an empty folder: nothing is ever overwritten."""
        try:
            occupied = next(output.iterdir(), None) if output is not None and output.exists() else None
        except OSError as error:
            raise UsageError(f"cannot use --output {output}: {error.strerror}") from None
        if occupied is not None and output is not None:
            holds = "holds another run" if (output / "run.json").exists() else f"is not empty ({occupied.name})"
            raise UsageError(f"--output {output} {holds}; choose a folder that does not exist yet")

    @staticmethod
    def check_exists(folder: Path) -> None:
        """Raise UsageError when there is nothing of this name to compare."""
        if not folder.exists():
            raise _no_folder(folder)

    @staticmethod
    def at(folder: Path) -> RunDir:
        """Return the run directory of a folder. Raises UsageError where there is no folder."""
        if not folder.is_dir():
            raise _no_folder(folder)
        folder = follow_link(folder)
        return RunDir(folder.absolute(), folder.name)

    @staticmethod
    def create(output: Path | None, *, with_ranks: bool = True) -> RunDir:
        """Make a new run directory: `output`, or `aclcmp-runs/<stamp>` in the working directory.

        Without ranks it gets no folders for shards and logs: it holds only a report. `aclcmp-runs/latest` leads to it.

        Raises UsageError as `check_vacant` does, and when the folder cannot be made.
        """
        RunDir.check_vacant(output)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for number in itertools.count(1):
            run_id = stamp if number == 1 else f"{stamp}-{number}"
            root = output.absolute() if output is not None else Path.cwd() / RUNS / run_id
            try:
                root.mkdir(parents=True, exist_ok=output is not None)
                run = RunDir(root, run_id)
                if with_ranks:
                    run.shards.mkdir()
                    run.logs.mkdir()
                _link_latest(root)
                return run
            except FileExistsError:  # another run began within the same second
                RunDir.check_vacant(output)
            except OSError as error:
                raise UsageError(f"cannot make {root}: {error.strerror}; choose a folder with --output") from None
        raise AssertionError("unreachable")

    @property
    def record(self) -> Path:
        """run.json."""
        return self.root / "run.json"

    @property
    def shards(self) -> Path:
        """Folder of the ranks' shards."""
        return self.root / "shards"

    @property
    def logs(self) -> Path:
        """Folder of the ranks' whole output."""
        return self.root / "logs"

    def log(self, rank: int) -> Path:
        """The whole output of one rank."""
        return self.logs / f"rank{rank:05d}.log"

    def node_log(self, node: int) -> Path:
        """The whole output of one node's command, where that starts the ranks itself."""
        return self.logs / f"node{node:05d}.log"

    @property
    def dumps(self) -> Path:
        """Folder of an accelerated library's dumps; the launcher makes it, with `--low-level` only."""
        return self.root / "dumps"

    def rank_dumps(self, rank: int) -> Path:
        """The dumps of one rank's processes."""
        return self.dumps / f"rank{rank:05d}"

    def node_dumps(self, node: int) -> Path:
        """The dumps of one node's command, where that starts the ranks itself: one environment serves all of them."""
        return self.dumps / f"node{node:05d}"

    def dumps_now_at(self, folder: Path) -> Path:
        """Return the present path of a folder of dumps: folders in the run directory move together with it."""
        here = self.dumps / folder.name
        return here if folder.parent.name == self.dumps.name and here.is_dir() else folder

    def is_of_one_rank(self, folder: Path) -> bool:
        """Tell whether only the processes of one rank dump into a folder."""
        return folder.parent == self.dumps and folder.name.startswith("rank")

    def nonce(self, token: str) -> Path:
        """Return the path of a file that one node writes for a moment to find out which other nodes see it."""
        return self.root / f".seen-{token}"

    @property
    def fetched(self) -> Path:
        """List of the ranks whose shards were fetched from other hosts."""
        return self.root / "fetched.json"

    @property
    def fetching(self) -> Path:
        """Folder of files that are being fetched from other hosts, by their later paths in the run directory."""
        return self.root / "fetching.part"

    def again(self, what: str) -> Path:
        """Return the folder of a further run that measures noise floors; `what` is "perturbed" or "repeat"."""
        return self.root / f"again-{what}"

    @property
    def local(self) -> Path:
        """Folder of a further run whose modules were computed from this one's golden values."""
        return self.root / "local"

    @property
    def report_html(self) -> Path:
        """The cross-rank report as a page."""
        return self.root / "report.html"

    @property
    def report_xml(self) -> Path:
        """The cross-rank report for test reporters (JUnit)."""
        return self.root / "report.xml"

    @property
    def report_h5(self) -> Path:
        """The cross-rank report for offline tools."""
        return self.root / "report.h5"

    @property
    def report_json(self) -> Path:
        """The cross-rank report for machines."""
        return self.root / "report.json"

    @property
    def report_csv(self) -> Path:
        """The cross-rank report as a table, in the original's columns."""
        return self.root / "report.csv"


def follow_link(folder: Path) -> Path:
    """Return the folder that a link leads to now: where it is that of the latest run, a new run changes it."""
    return Path(shown_path(folder.resolve())) if folder.is_symlink() else folder


def _link_latest(root: Path) -> None:
    """Let the link beside the runs of the working directory lead to a new one, unless that lies within another run."""
    runs = Path.cwd() / RUNS
    if not runs.is_dir() or any(RunDir(parent, "").record.exists() for parent in root.parents):
        return
    link, part = runs / LATEST, runs / f".{LATEST}-{os.getpid()}"
    with suppress(OSError):  # without the link the newest run is found by its time
        if link.is_symlink() or not link.exists():
            part.symlink_to(os.path.relpath(root, runs))
            part.replace(link)


def _no_folder(path: Path) -> UsageError:
    return UsageError(f"{path} is not a folder; give a run directory such as aclcmp-runs/20260101-120000")
