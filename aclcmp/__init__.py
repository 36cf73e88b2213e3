"""Label tensors in a script; `aclcmp --exec "python script.py" --ranks 8` compares them across ranks.

    from aclcmp import gen_id, perturb, rows, set_label, set_task_id, watch

Labels do nothing unless the script was started by `aclcmp`, so they may stay in production code. In a notebook or a
test a process records and compares itself:

    with aclcmp.record() as run:
        ...
    run.compare()

PYTEST_DONT_REWRITE: pytest would warn that this package, which has a plug-in for it, was imported before.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aclcmp.labeling.api import gen_id, rows, set_label, set_task_id
    from aclcmp.labeling.layout import Partial, Replicate, Shard
    from aclcmp.labeling.perturb import perturb
    from aclcmp.labeling.watch import watch
    from aclcmp.orchestrator.in_process.compare import assert_matches, compare
    from aclcmp.orchestrator.in_process.comparison import Comparison
    from aclcmp.orchestrator.in_process.recording import Recording, record

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Partial",
    "Recording",
    "Replicate",
    "Shard",
    "assert_matches",
    "compare",
    "gen_id",
    "perturb",
    "record",
    "rows",
    "set_label",
    "set_task_id",
    "watch",
]

_HOMES = {
    **dict.fromkeys(("gen_id", "rows", "set_label", "set_task_id"), "labeling.api"),
    **dict.fromkeys(("Partial", "Replicate", "Shard"), "labeling.layout"),
    "perturb": "labeling.perturb",
    "watch": "labeling.watch",
    **dict.fromkeys(("assert_matches", "compare"), "orchestrator.in_process.compare"),
    "Comparison": "orchestrator.in_process.comparison",
    **dict.fromkeys(("Recording", "record"), "orchestrator.in_process.recording"),
}
"""Name -> its module. It is loaded when asked for: the command imports this too, before it hears Ctrl-C."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f"aclcmp.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
