"""Which modules of a model are watched, and under which ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.watch.messages import tell_here
from aclcmp.labeling.watch.module_names import ROOT, Named, Pattern, Patterns, Rename, nearest, renamer

_MAX_ID = 1024


def choose(
    modules: list[Named], include: Pattern | Iterable[Pattern] | None, exclude: Pattern | Iterable[Pattern] | None
) -> list[Named]:
    """The modules that have a forward to hook and a name, or an alias, that is wanted."""
    wanted = None if include is None else Patterns(include)
    unwanted = Patterns(exclude or ())
    callable_ones = hookable(modules)
    names = [name for named in callable_ones for name in named.names]
    if wanted is not None:
        for pattern in wanted.unmatched(names):
            message = f"watch: no module with a forward is named like {pattern!r}; {nearest(pattern, names)}"
            if not any(wanted.match(name) for name in names):
                raise LabelError(message)
            tell_here(message)
    chosen = [
        named
        for named in callable_ones
        if any(wanted is None or wanted.match(name) for name in named.names)
        and (
            not unwanted.match(named.name)
            or any(each.parent is not named.parent for each in wanted_names(named, include, exclude))
        )
    ]
    if not chosen:
        raise LabelError("watch: nothing to watch: every module is excluded, or has no forward in Python")
    return chosen


def wanted_names(
    named: Named, include: Pattern | Iterable[Pattern] | None, exclude: Pattern | Iterable[Pattern] | None
) -> list[Named]:
    """A module under those of its names under which its calls are labelled."""
    wanted, unwanted = (None if include is None else Patterns(include)), Patterns(exclude or ())
    return [
        alias
        for alias in (named, *named.aliases)
        if (wanted is None or wanted.match(alias.name)) and not unwanted.match(alias.name)
    ]


_OF_OTHER_STAGES = "PipelineIdentityLayer"
"""What transformers leaves in place of the layers of other pipeline stages: it hands on what the stage received."""


def hookable(modules: list[Named]) -> list[Named]:
    """Those that can be called, and from Python, and stand for what the model has there."""
    return [
        named
        for named in modules
        if _has_forward(named.inner) and not is_scripted(named.inner) and type(named.inner).__name__ != _OF_OTHER_STAGES
    ]


def _has_forward(module: Any) -> bool:
    """Whether it can be called: a ModuleList cannot."""
    import torch

    return getattr(module.forward, "__func__", None) is not torch.nn.Module.forward


def is_scripted(module: Any) -> bool:
    """Tell whether torch.jit compiled a module."""
    import torch

    return isinstance(module, torch.jit.ScriptModule)


def label_names(chosen: list[Named], rename: Rename | None, prefix: str) -> dict[str, str]:
    """Module name -> id, without those that are renamed to None.

    Raises LabelError when two get the same, and for what cannot be an id. A module that is renamed to `""` stands for
    the model itself; a model around it goes without a label.
    """
    if not isinstance(prefix, str):
        raise LabelError(f"watch: prefix is a {type(prefix).__name__}, not a text")
    renamed, itself = renamer(rename), prefix or ROOT
    owners: dict[str, str] = {}
    for named in chosen:
        new = "" if named.name == ROOT else renamed(named.name)
        if new is None:
            continue
        if not isinstance(new, str):
            raise LabelError(f"watch: rename gives {new!r} for {named.name!r}; give a name, or None to skip it")
        data_id = ".".join(part for part in (prefix, new) if part) or ROOT
        if data_id == itself and owners.get(itself) == ROOT:
            del owners[itself]
        if (other := owners.setdefault(_checked(data_id, named), named.name)) != named.name:
            raise LabelError(
                f"watch: {other!r} and {named.name!r} both get the id {data_id!r}; change rename or exclude one"
            )
    return {name: data_id for data_id, name in owners.items()}


def _checked(data_id: str, named: Named) -> str:
    """What a label's id may be, as the recorder has it."""
    if len(data_id) > _MAX_ID or "\0" in data_id or any("\ud800" <= char <= "\udfff" for char in data_id):
        raise LabelError(
            f"watch: {named.name[:80]!r} gets the id {data_id[:80]!r}, which is no plain text of at most {_MAX_ID} "
            "characters; change rename or prefix"
        )
    return data_id


def tell_unused_rules(rename: Rename | None, modules: list[Named]) -> None:
    """Say which globs rename nothing. No error: one mapping may serve several models."""
    if isinstance(rename, Mapping):
        inside = [named.name for named in modules if named.name != ROOT]
        for pattern in Patterns(rename).unmatched([*inside, *(f"{name}." for name in inside)]):
            tell_here(f"watch: rename: no module is named like {pattern!r}; {nearest(pattern, inside)}")


@dataclass(frozen=True, slots=True)
class LabelIds:
    """The ids of single tensors: the module's, and where in its output the tensor is."""

    names: set[str]
    """Of all modules."""
    dropped: Patterns
    choices: list[str]
    """Names of the modules that `dropped` chooses from."""
    ends: set[str] = field(default_factory=set)
    """Names of all tensors so far that are not named like their module."""

    def of(self, name: str, data_id: str, end: str) -> str | None:
        """Return the id of the tensor at `end` (`""`, `".1"`, `".input"`), None for an excluded one."""
        if end:
            self.ends.add(name + end)
            if self.dropped.match(name + end):
                return None
            if name + end in self.names:  # a child has that name: `mlp.1` is a module, not the second output
                return f"{data_id}.out{end}"
        return data_id + end

    def tell_unused(self) -> None:
        """Say which patterns excluded nothing; known at the end, for they may mean single tensors."""
        for pattern in self.dropped.unmatched([*self.choices, *self.ends]):
            tell_here(f"watch: exclude: nothing is named like {pattern!r}; {nearest(pattern, self.choices)}")
