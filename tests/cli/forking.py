"""Runs commands that are read as JSON lines, each in a process forked off this one, and answers with their exit codes.

What all commands import is imported once, so that a command costs hundredths of a second. Nothing here starts threads.
"""

import json
import os
import signal
import sys

from aclcmp.__main__ import main
from aclcmp.orchestrator.cli import app, commands, submit

PRELOADED = (app, commands, submit)


def run(command: dict) -> None:
    """Be the command `aclcmp ARGUMENTS`; never returns."""
    code = 70
    try:
        os.environ.clear()
        os.environ.update(command["environ"])
        os.chdir(command["folder"])
        for number, path in ((0, os.devnull), (1, command["out"]), (2, command["err"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), number)
        sys.argv = ["aclcmp", *command["arguments"]]
        signal.alarm(240)
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


for line in sys.stdin:
    if not (child := os.fork()):
        run(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
