"""Selection of the modules to watch, and the ids of their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.watch.messages import print_once_per_host
from aclcmp.labeling.watch.module_names import ROOT, NamedModule, Pattern, Patterns, Rename, nearest, renamer

_MAX_ID = 1024
_PLACEHOLDER = "PipelineIdentityLayer"
"""transformers puts it in the place of the layers of other pipeline stages; it returns its input."""


def select_modules(
    modules: list[NamedModule], include: Pattern | Iterable[Pattern] | None, exclude: Pattern | Iterable[Pattern] | None
) -> list[NamedModule]:
    """Return the modules that can be hooked and have a name, or an alias, that is included and not excluded.

    Raises LabelError where there is none, or where no pattern of `include` matches.
    """
    included = None if include is None else Patterns(include)
    excluded = Patterns(exclude or ())
    callable_ones = hookable(modules)
    names = [name for named in callable_ones for name in named.names]
    if included is not None:
        for pattern in included.patterns_without_match(names):
            message = f"watch: no module with a forward is named like {pattern!r}; {nearest(pattern, names)}"
            if not any(included.match(name) for name in names):
                raise LabelError(message)
            print_once_per_host(message)
    chosen = [
        named
        for named in callable_ones
        if any(included is None or included.match(name) for name in named.names)
        and (
            not excluded.match(named.name)
            or any(each.parent is not named.parent for each in watched_aliases(named, include, exclude))
        )
    ]
    if not chosen:
        raise LabelError("watch: nothing to watch: every module is excluded, or has no forward in Python")
    return chosen


def watched_aliases(
    named: NamedModule, include: Pattern | Iterable[Pattern] | None, exclude: Pattern | Iterable[Pattern] | None
) -> list[NamedModule]:
    """Return the aliases of a module, itself among them, under which its calls are labelled."""
    included, excluded = (None if include is None else Patterns(include)), Patterns(exclude or ())
    return [
        alias
        for alias in (named, *named.aliases)
        if (included is None or included.match(alias.name)) and not excluded.match(alias.name)
    ]


def hookable(modules: list[NamedModule]) -> list[NamedModule]:
    """Return the modules that can be called, from Python, and are no placeholder."""
    return [
        named
        for named in modules
        if _has_forward(named.inner) and not is_scripted(named.inner) and type(named.inner).__name__ != _PLACEHOLDER
    ]


def _has_forward(module: Any) -> bool:
    """Tell whether a module can be called: a ModuleList cannot."""
    import torch

    return getattr(module.forward, "__func__", None) is not torch.nn.Module.forward


def is_scripted(module: Any) -> bool:
    """Tell whether torch.jit compiled a module."""
    import torch

    return isinstance(module, torch.jit.ScriptModule)


def assign_ids(chosen: list[NamedModule], rename: Rename | None, prefix: str) -> dict[str, str]:
    """Return module name -> id, without the modules that are renamed to None.

    A module that is renamed to `""` stands for the model itself; a model around it gets no label. Raises LabelError
    when two modules get the same id, and for a text that cannot be an id.
    """
    if not isinstance(prefix, str):
        raise LabelError(f"watch: prefix is a {type(prefix).__name__}, not a text")
    new_name, model_id = renamer(rename), prefix or ROOT
    owners: dict[str, str] = {}
    for named in chosen:
        new = "" if named.name == ROOT else new_name(named.name)
        if new is None:
            continue
        if not isinstance(new, str):
            raise LabelError(f"watch: rename gives {new!r} for {named.name!r}; give a name, or None to skip it")
        data_id = ".".join(part for part in (prefix, new) if part) or ROOT
        if data_id == model_id and owners.get(model_id) == ROOT:
            del owners[model_id]
        _check_id(data_id, named)
        if (other := owners.setdefault(data_id, named.name)) != named.name:
            raise LabelError(
                f"watch: {other!r} and {named.name!r} both get the id {data_id!r}; change rename or exclude one"
            )
    return {name: data_id for data_id, name in owners.items()}


def _check_id(data_id: str, named: NamedModule) -> None:
    """Raise LabelError for an id that the recorder would refuse."""
    if len(data_id) > _MAX_ID or "\0" in data_id or any("\ud800" <= char <= "\udfff" for char in data_id):
        raise LabelError(
            f"watch: {named.name[:80]!r} gets the id {data_id[:80]!r}, which is no plain text of at most {_MAX_ID} "
            "characters; change rename or prefix"
        )


def report_unused_renames(rename: Rename | None, modules: list[NamedModule]) -> None:
    """Print which globs rename nothing. That is no error: one mapping may serve several models."""
    if isinstance(rename, Mapping):
        inside = [named.name for named in modules if named.name != ROOT]
        for pattern in Patterns(rename).patterns_without_match([*inside, *(f"{name}." for name in inside)]):
            print_once_per_host(f"watch: rename: no module is named like {pattern!r}; {nearest(pattern, inside)}")


@dataclass(frozen=True, slots=True)
class LabelIds:
    """The ids of single tensors: the id of the module, and the place of the tensor in its output."""

    names: set[str]
    """Names of all modules."""
    excluded: Patterns
    candidates: list[str]
    """Names of the modules that `excluded` could match."""
    ends: set[str] = field(default_factory=set)
    """Names so far of the tensors that are not named like their module."""

    def tensor_id(self, name: str, data_id: str, end: str) -> str | None:
        """Return the id of the tensor at `end` (`""`, `".1"`, `".input"`), None for an excluded one."""
        if end:
            self.ends.add(name + end)
            if self.excluded.match(name + end):
                return None
            if name + end in self.names:  # a child has that name: `mlp.1` is a module, not the second output
                return f"{data_id}.out{end}"
        return data_id + end

    def report_unmatched_excludes(self) -> None:
        """Print which patterns excluded nothing. Called at the end, because a pattern may mean a single tensor."""
        for pattern in self.excluded.patterns_without_match([*self.candidates, *self.ends]):
            print_once_per_host(
                f"watch: exclude: nothing is named like {pattern!r}; {nearest(pattern, self.candidates)}"
            )
