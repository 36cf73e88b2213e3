"""Which modules of a model are watched, and under which ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.watch.hooks import tell
from aclcmp.labeling.watch.names import ROOT, Named, Pattern, Patterns, Rename, nearest, renamer


def choose(
    modules: list[Named], include: Pattern | Iterable[Pattern] | None, exclude: Pattern | Iterable[Pattern] | None
) -> list[Named]:
    """The modules that have a forward to hook and a name, or an alias, that is wanted."""
    wanted = None if include is None else Patterns(include)
    unwanted = Patterns(exclude or ())
    hookable = [named for named in modules if _has_forward(named.inner) and not is_scripted(named.inner)]
    names = [name for named in hookable for name in (named.name, *named.aliases)]
    if wanted is not None:
        for pattern in wanted.unmatched(names):
            message = f"watch: no module with a forward is named like {pattern!r}; {nearest(pattern, names)}"
            if not any(wanted.match(name) for name in names):
                raise LabelError(message)
            tell(message)
    chosen = [
        named
        for named in hookable
        if (wanted is None or any(wanted.match(name) for name in (named.name, *named.aliases)))
        and not unwanted.match(named.name)
    ]
    if not chosen:
        raise LabelError("watch: nothing to watch: every module is excluded, or has no forward in Python")
    return chosen


def _has_forward(module: Any) -> bool:
    """Whether it can be called: a ModuleList cannot."""
    import torch

    return getattr(module.forward, "__func__", None) is not torch.nn.Module.forward


def is_scripted(module: Any) -> bool:
    import torch

    return isinstance(module, torch.jit.ScriptModule)


def label_names(chosen: list[Named], rename: Rename | None, prefix: str) -> dict[str, str]:
    """Module name -> id, without those that are renamed to None; raises LabelError when two get the same."""
    renamed = renamer(rename)
    owners: dict[str, str] = {}
    for named in chosen:
        if named.name == ROOT:
            new: str | None = prefix or ROOT
        else:
            new = renamed(named.name)
            if new is not None and (not isinstance(new, str) or not new):
                raise LabelError(f"watch: rename gives {new!r} for {named.name!r}; give a name, or None to skip it")
            new = f"{prefix}.{new}" if prefix and new is not None else new
        if new is None:
            continue
        if (other := owners.setdefault(new, named.name)) != named.name:
            raise LabelError(
                f"watch: {other!r} and {named.name!r} both get the id {new!r}; change rename or exclude one"
            )
    return {name: data_id for data_id, name in owners.items()}


@dataclass(frozen=True, slots=True)
class LabelIds:
    """The ids of single tensors: the module's, and where in its output the tensor is."""

    names: set[str]
    dropped: Patterns

    def of(self, name: str, data_id: str, end: str) -> str | None:
        """Return the id of the tensor at `end` (`""`, `".1"`, `".input"`), None for an excluded one."""
        if end and self.dropped.match(name + end):
            return None
        if name + end in self.names and end:  # a child has that name: `mlp.1` is a module, not the second output
            return f"{data_id}.out{end}"
        return data_id + end
