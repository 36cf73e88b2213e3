"""For commands to which a test presses Ctrl-C."""

import signal


def as_in_a_terminal() -> None:
    """A `preexec_fn`: heed SIGINT. A shell's background jobs, which a test run may be one of, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
