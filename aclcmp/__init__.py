"""Label tensors in a script; `aclcmp --exec "python script.py" --ranks 8` compares them across ranks.

    from aclcmp import gen_id, perturb, rows, set_label, set_task_id, watch

Every call is a no-op unless the script was started by `aclcmp`, so labels may stay in production code.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aclcmp.labeling.api import gen_id, rows, set_label, set_task_id
    from aclcmp.labeling.layout import Partial, Replicate, Shard
    from aclcmp.labeling.perturb import perturb
    from aclcmp.labeling.watch import watch

__version__ = "0.1.0"

__all__ = ["Partial", "Replicate", "Shard", "gen_id", "perturb", "rows", "set_label", "set_task_id", "watch"]

_HOMES = {
    **dict.fromkeys(("gen_id", "rows", "set_label", "set_task_id"), "api"),
    **dict.fromkeys(("Partial", "Replicate", "Shard"), "layout"),
    "perturb": "perturb",
    "watch": "watch",
}
"""Name -> module of `labeling`. It is loaded when asked for: the command imports this too, before it hears Ctrl-C."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(f"aclcmp.labeling.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
