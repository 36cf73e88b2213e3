"""The `aclcmp` command."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        import gc

        from aclcmp.orchestrator.interrupts import defer_interrupts, ignore_interrupts

        gc.set_threshold(50_000)  # imports make many objects that stay: looking at them took a tenth of the start
        defer_interrupts()
        from aclcmp.orchestrator.cli.app import run_cli

        code = run_cli(sys.argv[1:])
        ignore_interrupts()
    except KeyboardInterrupt:
        from contextlib import suppress

        from aclcmp.orchestrator.interrupts import ignore_interrupts  # again, for the import may have been broken off

        ignore_interrupts()
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write("aclcmp: error: interrupted\n")
        code = 3
    sys.exit(code)


if __name__ == "__main__":
    main()
