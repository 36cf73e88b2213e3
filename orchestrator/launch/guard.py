"""Run one command so that none of its processes outlives its owner, whatever dies first. Linux, standard library only.

    python -I -S guard.py STATUS_FD COMMAND [ARGUMENT ...]

The lifeline is stdin, a pipe whose only write end the owner holds. When the command ends, or the lifeline closes, every
descendant is ended: SIGTERM, GRACE seconds, SIGKILL. The command's exit code (128 + n for signal n) is written to
STATUS_FD as soon as the command ends; the guard's own exit code is the same, once all descendants are gone.

Two variables of its environment are for the guard alone: PRELOAD holds the LD_PRELOAD of the command, which the guard
itself must not load; REMOVE is a file that goes, with the folder that it is alone in, when all processes are gone.

    owner (Ray actor) ── outer ── inner ── command ── its processes, also those in sessions of their own

Two processes, because Ray SIGKILLs the *direct* children of a worker that goes: that hits the outer one, which only
waits. The inner one leads its own session (no terminal signal reaches it) and is the sub-reaper: what the command's
processes orphan becomes its child, so that a walk over parents in /proc finds all of them.
"""

import ctypes
import os
import select
import signal
import sys
import time

GRACE = 2.0
GIVE_UP = 10.0  # seconds; a process in an uninterruptible wait ends after the wait
PRELOAD, REMOVE = "ACLCMP_GUARD_PRELOAD", "ACLCMP_GUARD_REMOVE"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
prctl = ctypes.CDLL(None, use_errno=True).prctl


def main() -> None:
    """Fork the inner guard, wait for it, and pass on its exit code."""
    status, command = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(status, False)  # the command must not hold it open
    preload, remove = os.environ.pop(PRELOAD, ""), os.environ.pop(REMOVE, "")
    inner = os.fork()
    if inner == 0:
        guard(status, command, preload, remove)
    os.close(status)
    os._exit(code_of(os.waitpid(inner, 0)[1]))


def guard(status: int, command: list[str], preload: str, remove: str) -> None:
    """Run the command until it ends or the lifeline closes, sweep, exit. Never returns."""
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # a handler, so that the wake-up is written

    child = os.fork()
    if child == 0:
        if preload:
            os.environ["LD_PRELOAD"] = preload
        run(command)
    code = None
    while code is None:
        ready, _, _ = select.select([sys.stdin.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        code = reap(child)
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 1):
            break
    if code is None:
        code = sweep(child)
        report(status, code)
    else:
        report(status, code)  # before the sweep, which may take GRACE: the first failure is found by its time
        sweep(child)
    forget(remove)
    os._exit(code)


def run(command: list[str]) -> None:
    """Become the command, with the signals of an ordinary process. Never returns."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # the last resort, if the inner guard itself is killed
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # signals that a background shell, Python or we ignore would stay ignored
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray starts its processes with SIGINT blocked
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"aclcmp: cannot run {command[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def report(status: int, code: int) -> None:
    """Write the exit code for the owner, which may be gone."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        os.write(status, f"{code}\n".encode())
    except BrokenPipeError:
        return


def sweep(child: int) -> int:
    """End every descendant; return the command's exit code (0 if it was known before)."""
    code = None
    start = time.monotonic()
    signalled: set[int] = set()
    while alive := descendants(os.getpid()):
        elapsed = time.monotonic() - start
        if elapsed > GRACE + GIVE_UP:
            break
        # Oldest first, so that a shell ends before its children and does not print how they ended.
        for pid in sorted(alive if elapsed > GRACE else alive - signalled):
            try:
                os.kill(pid, signal.SIGKILL if elapsed > GRACE else signal.SIGTERM)
            except ProcessLookupError:
                continue
        signalled |= alive
        time.sleep(0.01)
        ended = reap(child)
        code = code if ended is None else ended
    return 128 + signal.SIGKILL if code is None else code


def forget(path: str) -> None:
    """Remove a file, and its folder if nothing else is in it. Do nothing without a path, or if the file is gone."""
    for remove, what in ((os.unlink, path), (os.rmdir, path.rpartition("/")[0])):
        try:
            remove(what)
        except OSError:
            continue


def reap(child: int) -> "int | None":
    """Collect every ended child, orphans too; return the exit code of `child` if it is among them."""
    code = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = code_of(ended)


def descendants(root: int) -> "set[int]":
    """Return the ids of all processes below `root`, zombies too."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                with open(f"{entry.path}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double the start-up time
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    pending = [root]
    while pending:
        below = children.get(pending.pop(), [])
        found.update(below)
        pending.extend(below)
    return found


def code_of(status: int) -> int:
    """Return the exit code in a shell's convention: 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
