"""The golden side of an engine's run, computed by transformers in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable

from aclcmp.labeling.engines.golden import ERROR, PROGRESS
from aclcmp.labeling.identity import RUN_ID, SHARD_DIR
from aclcmp.orchestrator.engines.check_input import GoldenModel
from aclcmp.orchestrator.errors import ExitCode, LaunchError, UsageError
from aclcmp.orchestrator.run.directory import RunDir

_LAST_LINES = 5


def compute_golden(run: RunDir, run_id: str, model: GoldenModel, say: Callable[[str], None]) -> None:
    """Add the golden side to the shards of a run; `say` is called with each line of progress.

    Raises UsageError where the run or the model is not fit for it, LaunchError where the computation fails.
    """
    command = [sys.executable, "-m", "aclcmp.labeling.engines.golden", str(run.shards), str(model.folder)]
    command += model.options
    environ = os.environ | {SHARD_DIR: str(run.shards), RUN_ID: run_id, "RANK": "0", "WORLD_SIZE": "1"}
    environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                text = line.rpartition("\r")[2].strip()
                if text.startswith(PROGRESS):
                    say(text)
                elif text:
                    last.append(text)
        except BaseException:
            process.terminate()
            raise
    code = process.returncode
    if code == ExitCode.USAGE:
        error = next((text for text in reversed(last) if text.startswith(ERROR)), "the golden side cannot be computed")
        raise UsageError(error.removeprefix(ERROR))
    if code:
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        memory = "; often the system was out of memory" if code == -signal.SIGKILL else ""
        raise LaunchError(f"the golden side failed ({ended}{memory}): {' | '.join(last)[-600:]}")
