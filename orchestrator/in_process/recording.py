"""Recording of labels in this process: what `aclcmp.record()` returns, and its comparison."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import time
import weakref
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType
from typing import TYPE_CHECKING

from aclcmp.labeling.api import switch_to
from aclcmp.labeling.identity import SHARD_DIR
from aclcmp.labeling.recorder import Recorder
from aclcmp.labeling.watch.handle import Watch, live_handles
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.directory import RunDir

if TYPE_CHECKING:
    from aclcmp.orchestrator.core.run_record import RunRecord
    from aclcmp.orchestrator.in_process.comparison import Comparison
    from aclcmp.orchestrator.in_process.options import FilePath, PolicySource

_TASK = "AIT_CMP_TASK_ID"
_running: list[Recording] = []
"""Those that record; labels go to the last one."""


class Recording:
    """Labels of this process. A context manager: labels that are set inside the block are recorded, those outside not.

    The block may be entered again, to record more; labels of all threads count. A block inside another one records
    alone. Recorded are the labels of this process by itself, as rank 0 of 1, whatever job it belongs to.
    """

    def __init__(self, output: FilePath | None = None) -> None:
        """Record into the folder `output`, or one that is removed with this object. Raises UsageError if it is used."""
        self.compared = False
        """True once `compare` was called."""
        shards = os.environ.get(SHARD_DIR)
        self.is_launched = bool(shards)
        """True where aclcmp launched this process: labels go to that run, and nothing is recorded or compared here."""
        self._closer: weakref.finalize[..., Recording] | None = None
        if shards:
            self._run = RunDir.at(Path(shards).parent)
        else:
            if output is not None:
                self._run = RunDir.create(Path(output), with_ranks=False)
            else:
                self._run = RunDir.at(Path(mkdtemp(prefix="aclcmp-")))
                self._closer = weakref.finalize(self, _remove, self._run.root, os.getpid())
            self._run.shards.mkdir()
        self._recorder: Recorder | None = None
        self._before: tuple[set[Watch], str | None] = (set(), None)
        self._started = self._finished = 0.0
        self._error = ""

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self._run.root

    def __repr__(self) -> str:
        state = "recording" if self in _running else "closed" if self._is_closed else "stopped"
        return f"<aclcmp.Recording: {state}, {self.folder}>"

    def __enter__(self) -> Recording:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._error = f"the block ended with {type(error).__name__}: {error}".removesuffix(": ")
        self._stop(error)

    def start(self) -> None:
        """Record labels from now on. Raises UsageError where it records already, or was closed."""
        if self.is_launched:
            sys.stderr.write("aclcmp: record() leaves the labels to the run that aclcmp launched\n")
            return
        if self in _running:
            raise UsageError("this recording has been started already; stop it first, or make another: aclcmp.record()")
        if self._is_closed:
            raise UsageError("this recording is closed; make another: aclcmp.record()")
        if not _running:
            atexit.register(_stop_all)
        self._started = self._started or time.time()
        self._before = live_handles(), os.environ.get(_TASK)
        before = self._recorder
        self._recorder = Recorder.of_this_process(self._run.shards) if before is None else before.successor()
        _running.append(self)
        switch_to(self._recorder)

    def stop(self) -> None:
        """Record no more: remove the hooks of `watch` since `start`, and seal what was recorded."""
        self._stop(None)

    def _stop(self, error: BaseException | None) -> None:
        if self not in _running:
            return
        handles, task = self._before
        for handle in live_handles() - handles:
            handle.__exit__(None, error, None)
        is_last = _running[-1] is self
        _running.remove(self)
        if is_last:  # a forked child has a recorder of its own
            self._recorder = switch_to(_running[-1]._recorder if _running else None)
        if not _running:
            atexit.unregister(_stop_all)
        if self._recorder is not None:
            self._recorder.close(seal=self._closer is None)
        os.environ.pop(_TASK, None)
        if task is not None:
            os.environ[_TASK] = task
        self._finished = time.time()
        if self._closer is None:
            from aclcmp.orchestrator.run.record_file import save_record

            save_record(self._record(), self._run.record)

    def close(self) -> None:
        """Stop, and remove the folder, unless it was given as `output`. Comparisons stay as they are."""
        self.stop()
        if self._closer is not None:
            self._closer()

    @property
    def _is_closed(self) -> bool:
        return self._closer is not None and not self._closer.alive

    def compare(
        self,
        *,
        policy: PolicySource | None = None,
        map: FilePath | None = None,
        layouts: FilePath | None = None,
    ) -> Comparison:
        """Compare golden's labels with the actual ones, all that were recorded by now.

        Args:
            policy: a policy file, or a dict of the same words, e.g. `{"limits": {"float32": {"warn": 1e-4, "fail":
                1e-3}}}`.
            map: a file that maps the ids of golden labels to those of actual ones.
            layouts: a file that corrects the layouts of labels.

        Labels of which there is only one side, or that failed, make it `incomplete`; a block that ended with an
        exception makes it `failed`. Raises UsageError for a wrong file, and where there is nothing to read.
        """
        if self.is_launched:
            raise UsageError(f"the labels are in the run that aclcmp launched, which compares them: {self.folder}")
        if self._is_closed:
            raise UsageError("this recording is closed, and what it recorded is removed; compare before that")
        from aclcmp.orchestrator.in_process.compare_here import compare_run
        from aclcmp.orchestrator.in_process.comparison import Comparison
        from aclcmp.orchestrator.in_process.options import read_options

        report = compare_run(self._run, self._record(), read_options(policy, map, layouts))
        self.compared = True
        return Comparison(report, self._run)

    def _record(self) -> RunRecord:
        """Return what run.json says of this process."""
        from aclcmp.orchestrator.in_process.own_record import own_record

        return own_record(self._run.run_id, self._started, self._finished or time.time(), self._error)


def record(output: FilePath | None = None) -> Recording:
    """Record the labels of this process: `with aclcmp.record() as run:`, then `run.compare()`.

    Args:
        output: a folder that does not exist yet, for the recorded tensors; it stays, as a run directory of the command
            line. By default a temporary one, removed with the returned object (`close`, or at the end of the process).

    In a process that `aclcmp` launched, labels go on to that run.
    """
    return Recording(output)


def _remove(folder: Path, process: int) -> None:
    """Remove a folder of this process; a forked child leaves it to its parent."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _stop_all() -> None:
    for each in reversed(_running):
        each.stop()
