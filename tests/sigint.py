"""For commands to which a test presses Ctrl-C, or whose terminal it takes away."""

import signal


def as_in_a_terminal() -> None:
    """A `preexec_fn`: heed SIGINT, which a shell's background jobs ignore, and SIGHUP, which what nohup starts does.

    A test run may be either.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
