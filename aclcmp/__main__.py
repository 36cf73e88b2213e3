"""The `aclcmp` command."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from aclcmp.orchestrator.interrupts import spare_imports

    spare_imports()
    from aclcmp.orchestrator.cli import run_cli

    sys.exit(run_cli(sys.argv[1:]))


if __name__ == "__main__":
    main()
