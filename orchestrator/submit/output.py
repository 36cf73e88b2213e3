"""Output of the submitting commands: a job's log on stdout, all messages of aclcmp on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aclcmp.orchestrator.core.redaction import redact
from aclcmp.orchestrator.submit.cluster_file import ClusterFile, ClusterFileKind
from aclcmp.orchestrator.submit.follow import Choice
from aclcmp.orchestrator.submit.submission import Submission
from aclcmp.orchestrator.terminal.console import report_console

if TYPE_CHECKING:
    from rich.progress import TaskID

_LARGE = 8 << 20


class JobConsole:
    """The terminal of a command that submits or follows a job."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a log may hold what this terminal cannot write
        self._console = report_console(sys.stderr)

    def say(self, text: str) -> None:
        """Write a message of aclcmp."""
        self._console.print(text, soft_wrap=True)

    def show(self, text: str) -> None:
        """Write a piece of a log."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def close_log(self) -> None:
        """Drop what stdout still buffers: nobody reads it any more, and it would be written at exit."""
        report_console(sys.stdout).on_broken_pipe()

    def how_to_return(self, job_id: str) -> None:
        """Say what can be done with a job that runs on."""
        self.say(f"{job_id} runs on.\n  follow it:  aclcmp attach {job_id}\n  stop it:    aclcmp stop {job_id}")

    def ask(self, job_id: str) -> Choice:
        """Ask at Ctrl-C what to do; without a terminal, or at another Ctrl-C, the job is left running."""
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return Choice.DETACH
        try:
            while True:
                sys.stderr.write(f"\n{job_id}: [s]top it, or [d]etach and let it run? (Enter: go on watching) ")
                sys.stderr.flush()
                line = sys.stdin.readline()
                answer = line.strip().lower()
                if line == "" or answer in ("d", "detach"):
                    return Choice.DETACH
                if answer in ("s", "stop"):
                    return Choice.STOP
                if answer == "":
                    return Choice.GO_ON
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            return Choice.DETACH

    def dry_run(self, cluster: ClusterFile, job: Submission, address: str | None, output: Path) -> None:
        """Show what would be submitted, without values that may be secret."""
        variables = [f"{name}={value}" for name, value in job.shown_variables.items()]
        rows = [
            (
                "cluster",
                address
                or ("(asked of Ray when it is up)" if cluster.kind is ClusterFileKind.LAUNCHER else "(--address)"),
            ),
            ("command", redact(job.entrypoint)),
            ("variables", " ".join(variables)),
            ("upload", str(job.working_dir or "")),
            ("excluded", " ".join(job.excludes) if job.working_dir else ""),
            ("run there", job.run_dir.replace('"${HOME:-/tmp}"', "~")),
            ("report here", str(output)),
        ]
        sys.stdout.write("".join(f"{name:<12} {value}\n" for name, value in rows if value))

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """Yield the function to call as files come; on a terminal it shows the progress of large ones."""
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        tasks: dict[str, TaskID] = {}

        def step(name: str, at: int, size: int) -> None:
            if size < _LARGE:
                return
            if name not in tasks:
                for old in tasks.values():
                    bars.remove_task(old)
                tasks.clear()
                tasks[name] = bars.add_task(name, total=size)
            bars.update(tasks[name], completed=at)

        with bars:
            yield step
