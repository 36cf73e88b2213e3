"""`watch`: hooks on a model's modules, labels under the modules' names, and word of those that never ran."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from types import TracebackType
from typing import Any

from aclcmp.labeling.api import is_on
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.watch.choosing import LabelIds, choose, is_scripted, label_names
from aclcmp.labeling.watch.hooks import AfterForward, BeforeForward, Tap, tell
from aclcmp.labeling.watch.names import ROOT, Named, Pattern, Patterns, Rename, walk
from aclcmp.labeling.watch.parallel import Known, known_layouts

_SIDES = {"pta": "pta", "golden": "pta", "acl": "acl", "actual": "acl"}
_SHOWN = 5

_live: set[Watch] = set()
_hooked: weakref.WeakKeyDictionary[Any, set[tuple[str, bool]]] = weakref.WeakKeyDictionary()
"""Module -> (side, whether its inputs) that are labelled: a second watch must not label them twice."""


class Watch:
    """The hooks of one call of `watch`; leaving it as a context manager, or `close`, takes them off."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        """Module name -> id of its label."""
        self.notes: tuple[str, ...] = ()
        """What is not labelled, or not as its name says, and why."""
        self._handles: list[Any] = []
        self._taps: list[Tap] = []
        self._marks: list[tuple[weakref.ref[Any], tuple[str, bool]]] = []

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        if error is None:
            self._tell_silent()

    def close(self) -> None:
        """Take the hooks off, and say which watched modules never ran."""
        self._remove()
        self._tell_silent()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        for module, mark in self._marks:
            if (known := module()) is not None:
                _hooked.get(known, set()).discard(mark)
        self._handles, self._marks = [], []
        _live.discard(self)

    def _tell_silent(self) -> None:
        taps, self._taps = self._taps, []
        silent = [tap.data_id for tap in taps if not tap.ran]
        if silent:
            tell(
                f"watch, side {taps[0].side!r}: {len(silent)} of {len(taps)} watched modules never ran, or ran in "
                f"compiled code or a replayed device graph, where hooks do not fire: {_few(silent)}"
            )

    def _hook(self, module: Any, tap: Tap, *, inputs: bool) -> bool:
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
                module.register_forward_pre_hook(BeforeForward(tap), with_kwargs=True)
                if before
                else module.register_forward_hook(AfterForward(tap))
            )
            added = True
        if added:
            self._taps.append(tap)
        return added


def watch(
    model: Any,
    side: str,
    *,
    include: Pattern | Iterable[Pattern] | None = None,
    exclude: Pattern | Iterable[Pattern] | None = None,
    inputs: bool = False,
    rename: Rename | None = None,
    prefix: str = "",
    layouts: bool = True,
) -> Watch:
    """Label what the modules of `model` return, under their names: models with the same names pair by themselves.

    Args:
        model: a torch.nn.Module, compiled or wrapped or not.
        side: "pta" (or "golden"), or "acl" (or "actual").
        include: which modules: globs over dotted names, where `*` stays within a part and `**` does not
            (`"layers.*.mlp"`, `"**.self_attn"`), or compiled regular expressions that match the whole name. All that
            have a forward by default; the model itself is `"forward"`.
        exclude: which not. Also tried on the ends of ids (below), so `"**.self_attn.1"` drops one tensor of a tuple.
        inputs: label what the modules are given too, before they run: `<name>.input`, `<name>.input.1`, and
            `<name>.input.<key>` for keywords.
        rename: {glob: replacement}, where stars carry over by place, what is inside a renamed module follows, and None
            skips it; or a function of the name that returns the new one, or None.
        prefix: put before all ids, with a dot; the id of the model itself where that is watched.
        layouts: take the layouts of plain tensors from the model's transformers TP plan or its DTensor weights, where
            they say them for certain. (A DTensor tells its own in any case.)

    The first tensor of a tuple has the plain name, so `(hidden, None)` pairs with `hidden`; further ones have their
    place (`<name>.1`), those of dicts and dataclasses their key (`<name>.logits`). Values that are no tensors, and
    key-value caches, are passed over. Each call of a module is an occurrence; recomputations in backward are not.

    Hooks run in the order of their registration: what a hook registered later makes of an output is not seen. A module
    that is watched already on this side is not labelled twice. Copies of the model are not watched.

    Without the launcher nothing is registered. Otherwise a wrong argument, nothing to watch, or two modules with one
    id raise LabelError, here and never while the model runs.
    """
    if not is_on():
        return Watch()
    modules, known_side = _modules(model), _known_side(side)
    known = dict(zip(modules, known_layouts(modules) if layouts else repeat(Known()), strict=False))
    chosen = choose(modules, include, exclude)
    ids = label_names(chosen, rename, prefix)
    label_ids = LabelIds({named.name for named in modules}, Patterns(exclude or ()))
    watching = Watch()
    doubled: list[str] = []
    try:
        for named in chosen:
            if (data_id := ids.get(named.name)) is None:
                continue
            ends = partial(label_ids.of, named.name, data_id)
            level = "model" if named.name == ROOT else ""
            tap = Tap(known_side, data_id, named, known[named], ends, level)
            if watching._hook(named.module, tap, inputs=inputs):
                watching.ids[named.name] = data_id
            else:
                doubled.append(named.name)
    except BaseException:
        watching._remove()
        raise
    watching.notes = tuple(_notes(known_side, modules, [n for n in chosen if n.name in watching.ids], known, doubled))
    _live.add(watching)
    return watching


def _modules(model: Any) -> list[Named]:
    """The modules that can be hooked; raises LabelError for what is no module."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise LabelError(f"watch: the model is a {type(model).__name__}, not a torch.nn.Module")
    return walk(model)


def _known_side(side: Any) -> str:
    if not isinstance(side, str) or side not in _SIDES:
        raise LabelError(f"watch: side={side!r} is not a side; use 'pta' (golden) or 'acl' (actual)")
    return _SIDES[side]


def _notes(
    side: str, modules: list[Named], watched: list[Named], known: dict[Named, Known], doubled: list[str]
) -> Iterator[str]:
    """What users may miss in the report; what they would take for a fault of theirs is said at once, too."""
    for named in watched:
        for alias in named.aliases:
            yield f"{alias!r} is the same module as {named.name!r} and is labelled as that"
    for names, why in (
        ([n.name for n in watched if known[n].packed], "several slices lie side by side in its output: not labelled"),
        ([n.name for n in modules if is_scripted(n.inner)], "it is scripted and takes no hooks: not labelled"),
        (doubled, f"it is watched already on side {side!r}: not labelled twice"),
    ):
        if names:
            tell(f"watch, side {side!r}: {_few(names)}: {why}")
            yield from (f"{name!r}: {why}" for name in names)


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _tell_all() -> None:
    if hasattr(sys, "last_value"):  # the script ends by an exception, which says more
        return
    for watching in list(_live):
        watching._tell_silent()


if is_on():
    atexit.register(_tell_all)
