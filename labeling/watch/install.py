"""Installation of the hooks of one `watch`: it selects modules, assigns ids, and reports what is not labelled."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

from aclcmp.labeling.device_graphs import see_device_graphs
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.golden_values.substitution import substitution
from aclcmp.labeling.identity import INPUTS
from aclcmp.labeling.shard.record import SIDE_NAMES
from aclcmp.labeling.watch.hooks import Callers, Hook, SharedTap, Tap
from aclcmp.labeling.watch.messages import abbreviate, print_once_per_host
from aclcmp.labeling.watch.module_names import ROOT, NamedModule, Pattern, Patterns, Rename, walk
from aclcmp.labeling.watch.select_modules import (
    LabelIds,
    assign_ids,
    hookable,
    is_scripted,
    report_unused_renames,
    select_modules,
    watched_aliases,
)
from aclcmp.labeling.watch.torch_state import TorchState
from aclcmp.labeling.watch.tp_layouts import ModuleLayouts, module_layouts

_hooked: weakref.WeakKeyDictionary[Any, set[tuple[str, bool]]] = weakref.WeakKeyDictionary()
"""Module -> (side, True for inputs and False for outputs) that are labelled; a second watch must not repeat them."""


class Hooks:
    """The hooks of one watch, their taps, and notes about modules that are not labelled."""

    def __init__(
        self,
        model: Any,
        side: str,
        include: Pattern | Iterable[Pattern] | None,
        exclude: Pattern | Iterable[Pattern] | None,
        inputs: bool,
        rename: Rename | None,
        prefix: str,
        layouts: bool,
    ) -> None:
        """Install the hooks. Raises LabelError for a wrong argument, and where there is nothing to watch."""
        modules, self.side = _modules(model), _check_side(side)
        inputs = inputs or os.environ.get(INPUTS) == "1"
        known = dict(zip(modules, module_layouts(modules) if layouts else repeat(ModuleLayouts()), strict=False))
        chosen = select_modules(modules, include, exclude)
        wanted = {named: watched_aliases(named, include, exclude) for named in chosen if named.aliases}
        shared = [alias for named, aliases in wanted.items() for alias in aliases if alias is not named]
        names = assign_ids([*chosen, *shared], rename, prefix)
        report_unused_renames(rename, modules)
        self._label_ids = LabelIds(
            {name for named in modules for name in named.names},
            Patterns(exclude or ()),
            [name for named in hookable(modules) for name in named.names],
        )
        self.ids: dict[str, str] = {}
        self.taps: list[Tap] = []
        self._handles: list[Any] = []
        self._marks: list[tuple[weakref.ref[Any], tuple[str, bool]]] = []
        already_watched: list[str] = []
        watched: list[NamedModule] = []
        torch_state = TorchState()
        see_device_graphs()
        callers, calling, by_path = Callers(torch_state.is_compiling), set[int](), set[str]()

        def make_tap(named: NamedModule, hooked: NamedModule) -> Tap | None:
            if (data_id := names.get(named.name)) is None:
                return None
            ends = partial(self._label_ids.tensor_id, named.name, data_id)
            level = "model" if data_id == (prefix or ROOT) else _level(named)
            return Tap(self.side, data_id, named, known[hooked], ends, level, torch_state)

        try:
            for named in chosen:
                if (tap := make_tap(named, named)) is None:
                    continue
                by_caller: dict[int, Tap | None] = {}
                for alias in (named, *named.aliases) if named in wanted else ():
                    caller, alias_tap = _caller(alias), tap if alias is named else make_tap(alias, named)
                    if caller is not None:
                        alias_tap = alias_tap if alias in wanted[named] else None
                        by_caller[id(caller)] = by_caller.get(id(caller)) or alias_tap
                        if id(caller) not in calling:
                            calling.add(id(caller))
                            self._handles.append(caller.register_forward_pre_hook(callers.enter))
                            self._handles.append(caller.register_forward_hook(callers.leave, always_call=True))
                any_tap = SharedTap(tap, by_caller, callers) if len(by_caller) > 1 else tap
                if self._hook(named.module, any_tap, inputs=inputs or self._replaces_input(tap.data_id)):
                    watched.append(named)
                    if len(by_caller) > 1:
                        by_path.add(named.name)
                        self.ids |= {a.name: names[a.name] for a in wanted[named] if a.name in names}
                    else:
                        self.ids[named.name] = tap.data_id
                    self.taps.append(tap)
                else:
                    already_watched.append(named.name)
        except BaseException:
            self.remove()
            raise
        self.notes = tuple(_notes(self.side, modules, watched, known, already_watched, by_path))

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        for module, mark in self._marks:
            if (alive := module()) is not None:
                _hooked.get(alive, set()).discard(mark)
        self._handles, self._marks = [], []

    def report_silent(self) -> None:
        """Print which modules never ran though they should have, and which patterns excluded nothing."""
        taps, self.taps = self.taps, []
        used = {weight for tap in taps if tap.ran for weight in tap.weights}
        silent = [
            tap.data_id
            for tap in taps
            if not (tap.ran or tap.optional or (tap.weights and tap.weights <= used))  # tied: only its weight is used
        ]
        if silent:
            print_once_per_host(
                f"watch, side {self.side!r}: {len(silent)} of {len(taps)} watched modules never ran, or ran in "
                f"compiled code or a replayed device graph, where hooks do not fire: {abbreviate(silent)}"
            )
        if any(tap.ran for tap in taps):
            self._label_ids.report_unmatched_excludes()

    def _replaces_input(self, data_id: str) -> bool:
        golden = substitution() if self.side == "acl" else None
        return golden is not None and golden.takes_input(data_id)

    def _hook(self, module: Any, tap: Tap | SharedTap, *, inputs: bool) -> bool:
        """Register the hooks that the module does not have yet; return whether there were any."""
        marks = _hooked.setdefault(module, set())
        added = False
        for before in (True, False) if inputs else (False,):
            mark = (tap.side, before)
            if mark in marks:
                continue
            marks.add(mark)
            self._marks.append((weakref.ref(module), mark))
            self._handles.append(
                module.register_forward_pre_hook(Hook(tap, tap.before), with_kwargs=True)
                if before
                else module.register_forward_hook(Hook(tap, tap.after))
            )
            added = True
        return added


def _caller(named: NamedModule) -> Any:
    """Return the nearest module around `named` that is called, not only indexed; None where there is none."""
    around = named.parent
    while around is not None and around not in hookable([around]):
        around = around.parent
    return None if around is None else around.module


def _modules(model: Any) -> list[NamedModule]:
    """Return the modules of a model. Raises LabelError for anything that is no torch.nn.Module."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise LabelError(f"watch: the model is a {type(model).__name__}, not a torch.nn.Module")
    return walk(model)


def _check_side(side: Any) -> str:
    if not isinstance(side, str) or side not in SIDE_NAMES:
        raise LabelError(f"watch: side={side!r} is not a side; use 'pta' (golden), 'acl' (actual) or 'ref' (reference)")
    return SIDE_NAMES[side]


def _level(named: NamedModule) -> str:
    """Return "op" for a module without parts, "" for others, whose level follows from their id."""
    return "" if any(child is not None for child in named.inner._modules.values()) else "op"


def _notes(
    side: str,
    modules: list[NamedModule],
    watched: list[NamedModule],
    known: dict[NamedModule, ModuleLayouts],
    already_watched: list[str],
    by_path: set[str],
) -> Iterator[str]:
    """Yield notes on modules that are missing in the report; print those that look like a mistake of the user."""
    for named in watched:
        if named.name in by_path:
            others = abbreviate([alias.name for alias in named.aliases])
            yield f"{named.name!r} is also {others}: each call has the name of where it is called"
        else:
            yield from (
                f"{alias.name!r} is the same module as {named.name!r} and is labelled as that"
                for alias in named.aliases
            )
    for names, why in (
        ([n.name for n in watched if known[n].packed], "several slices lie side by side in its output: not labelled"),
        ([n.name for n in modules if is_scripted(n.inner)], "it is scripted and takes no hooks: not labelled"),
        (already_watched, f"it is watched already on side {side!r}: not labelled twice"),
    ):
        if names:
            print_once_per_host(f"watch, side {side!r}: {abbreviate(names)}: {why}")
            yield from (f"{name!r}: {why}" for name in names)
