"""Setting the hooks of one `watch`: chooses the modules, names their labels, and says what is not labelled."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.shard.record import SIDE_NAMES
from aclcmp.labeling.watch.hooks import Callers, Hook, Shared, Tap
from aclcmp.labeling.watch.messages import few, tell_here
from aclcmp.labeling.watch.module_names import ROOT, Named, Pattern, Patterns, Rename, walk
from aclcmp.labeling.watch.select_modules import (
    LabelIds,
    choose,
    hookable,
    is_scripted,
    label_names,
    tell_unused_rules,
    wanted_names,
)
from aclcmp.labeling.watch.torch_state import Moment
from aclcmp.labeling.watch.tp_layouts import Known, known_layouts

_hooked: weakref.WeakKeyDictionary[Any, set[tuple[str, bool]]] = weakref.WeakKeyDictionary()
"""Module -> (side, whether its inputs) that are labelled: a second watch must not label them twice."""


class Hooks:
    """The hooks of one watch, their taps, and what is to be known of them."""

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
        """Raises LabelError for a wrong argument, and where there is nothing to watch."""
        modules, self.side = _modules(model), _known_side(side)
        known = dict(zip(modules, known_layouts(modules) if layouts else repeat(Known()), strict=False))
        chosen = choose(modules, include, exclude)
        wanted = {named: wanted_names(named, include, exclude) for named in chosen if named.aliases}
        shared = [alias for named, aliases in wanted.items() for alias in aliases if alias is not named]
        names = label_names([*chosen, *shared], rename, prefix)
        tell_unused_rules(rename, modules)
        self._label_ids = LabelIds(
            {name for named in modules for name in named.names},
            Patterns(exclude or ()),
            [name for named in hookable(modules) for name in named.names],
        )
        self.ids: dict[str, str] = {}
        self.taps: list[Tap] = []
        self._handles: list[Any] = []
        self._marks: list[tuple[weakref.ref[Any], tuple[str, bool]]] = []
        doubled: list[str] = []
        watched: list[Named] = []
        moment = Moment()
        callers, calling, by_path = Callers(moment.is_compiling), set[int](), set[str]()

        def tap_of(named: Named, of: Named) -> Tap | None:
            if (data_id := names.get(named.name)) is None:
                return None
            ends = partial(self._label_ids.of, named.name, data_id)
            level = "model" if data_id == (prefix or ROOT) else _level(named)
            return Tap(self.side, data_id, named, known[of], ends, level, moment)

        try:
            for named in chosen:
                if (tap := tap_of(named, named)) is None:
                    continue
                several: dict[int, Tap | None] = {}
                for alias in (named, *named.aliases) if named in wanted else ():
                    caller, of_alias = _caller(alias), tap if alias is named else tap_of(alias, named)
                    if caller is not None:
                        of_alias = of_alias if alias in wanted[named] else None
                        several[id(caller)] = several.get(id(caller)) or of_alias
                        if id(caller) not in calling:
                            calling.add(id(caller))
                            self._handles.append(caller.register_forward_pre_hook(callers.enter))
                            self._handles.append(caller.register_forward_hook(callers.leave, always_call=True))
                hooked = Shared(tap, several, callers) if len(several) > 1 else tap
                if self._hook(named.module, hooked, inputs=inputs):
                    watched.append(named)
                    if len(several) > 1:
                        by_path.add(named.name)
                        self.ids |= {a.name: names[a.name] for a in wanted[named] if a.name in names}
                    else:
                        self.ids[named.name] = tap.data_id
                    self.taps.append(tap)
                else:
                    doubled.append(named.name)
        except BaseException:
            self.remove()
            raise
        self.notes = tuple(_notes(self.side, modules, watched, known, doubled, by_path))

    def remove(self) -> None:
        """Take them off."""
        for handle in self._handles:
            handle.remove()
        for module, mark in self._marks:
            if (known := module()) is not None:
                _hooked.get(known, set()).discard(mark)
        self._handles, self._marks = [], []

    def tell_silent(self) -> None:
        """Say which modules never ran though they should have, and which patterns excluded nothing."""
        taps, self.taps = self.taps, []
        used = {weight for tap in taps if tap.ran for weight in tap.weights}
        silent = [
            tap.data_id
            for tap in taps
            if not (tap.ran or tap.optional or (tap.weights and tap.weights <= used))  # tied: only its weight is used
        ]
        if silent:
            tell_here(
                f"watch, side {self.side!r}: {len(silent)} of {len(taps)} watched modules never ran, or ran in "
                f"compiled code or a replayed device graph, where hooks do not fire: {few(silent)}"
            )
        if any(tap.ran for tap in taps):
            self._label_ids.tell_unused()

    def _hook(self, module: Any, tap: Tap | Shared, *, inputs: bool) -> bool:
        """Register what is not registered yet; return whether anything was."""
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


def _caller(named: Named) -> Any:
    """The nearest module around one that is called, not only indexed."""
    around = named.parent
    while around is not None and around not in hookable([around]):
        around = around.parent
    return None if around is None else around.module


def _modules(model: Any) -> list[Named]:
    """The modules that can be hooked; raises LabelError for what is no module."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise LabelError(f"watch: the model is a {type(model).__name__}, not a torch.nn.Module")
    return walk(model)


def _known_side(side: Any) -> str:
    if not isinstance(side, str) or side not in SIDE_NAMES:
        raise LabelError(f"watch: side={side!r} is not a side; use 'pta' (golden), 'acl' (actual) or 'ref' (reference)")
    return SIDE_NAMES[side]


def _level(named: Named) -> str:
    """An operation has no parts; what has some is judged by its name."""
    return "" if any(child is not None for child in named.inner._modules.values()) else "op"


def _notes(
    side: str,
    modules: list[Named],
    watched: list[Named],
    known: dict[Named, Known],
    doubled: list[str],
    by_path: set[str],
) -> Iterator[str]:
    """What users may miss in the report; what they would take for a fault of theirs is said at once, too."""
    for named in watched:
        if named.name in by_path:
            others = few([alias.name for alias in named.aliases])
            yield f"{named.name!r} is also {others}: each call has the name of where it is called"
        else:
            yield from (
                f"{alias.name!r} is the same module as {named.name!r} and is labelled as that"
                for alias in named.aliases
            )
    for names, why in (
        ([n.name for n in watched if known[n].packed], "several slices lie side by side in its output: not labelled"),
        ([n.name for n in modules if is_scripted(n.inner)], "it is scripted and takes no hooks: not labelled"),
        (doubled, f"it is watched already on side {side!r}: not labelled twice"),
    ):
        if names:
            tell_here(f"watch, side {side!r}: {few(names)}: {why}")
            yield from (f"{name!r}: {why}" for name in names)
