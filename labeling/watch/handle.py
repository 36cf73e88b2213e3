"""`watch` and the handle that it returns: labels by hooks on a model's modules, under the modules' names.

Programs that label nothing import this module too, so the hooks themselves are imported by the first watch.
"""

from __future__ import annotations

import atexit
import sys
from typing import TYPE_CHECKING, Any

from aclcmp.labeling.api import is_on

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from aclcmp.labeling.watch.install import Hooks
    from aclcmp.labeling.watch.module_names import Pattern, Rename

_live: set[Watch] = set()


class Watch:
    """The hooks of one call of `watch`. `close`, or the end of a `with` block, removes them."""

    def __init__(self, hooks: Hooks | None = None) -> None:
        self.ids: dict[str, str] = {} if hooks is None else hooks.ids
        """Module name -> id of its label."""
        self.notes: tuple[str, ...] = () if hooks is None else hooks.notes
        """Modules that are not labelled, or not under their own name, with the reason."""
        self._hooks = hooks
        if hooks is not None:
            _live.add(self)

    def __repr__(self) -> str:
        if self._hooks is None:
            return "<Watch: off>"
        return f"<Watch: side {self._hooks.side!r}, {len(self.ids)} modules{'' if self in _live else ', closed'}>"

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()
        if error is None:
            self._report_silent()

    def close(self) -> None:
        """Remove the hooks, and print which watched modules never ran."""
        self._remove()
        self._report_silent()

    def _remove(self) -> None:
        if self._hooks is not None:
            self._hooks.remove()
        _live.discard(self)

    def _report_silent(self) -> None:
        if self._hooks is not None:
            self._hooks.report_silent()


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
        side: "pta" (or "golden"), "acl" (or "actual"), or "ref" (or "reference").
        include: which modules: globs over dotted names, where `*` stays within a part and `**` does not
            (`"layers.*.mlp"`, `"**.self_attn"`), or compiled regular expressions that match the whole name. All that
            have a forward by default; the model itself is `"forward"`.
        exclude: which not. Also tried on the ends of ids (below), so `"**.self_attn.1"` drops one tensor of a tuple.
        inputs: label what the modules are given too, before they run: `<name>.input`, `<name>.input.1`, and
            `<name>.input.<key>` for keywords.
        rename: {glob: replacement}, where stars carry over by place, what is inside a renamed module follows, and None
            skips it; or a function of the name that returns the new one, or None. `""` is the model itself:
            `{"module.**": "**"}` takes a wrapper off the names, and its own label away.
        prefix: put before all ids, with a dot; the id of the model itself where that is watched.
        layouts: take the layouts of plain tensors from the model's transformers TP plan or its DTensor weights, where
            they say them for certain. (A DTensor tells its own in any case.)

    The first tensor of a tuple has the plain name, so `(hidden, None)` pairs with `hidden`; further ones have their
    place (`<name>.1`), those of dicts and dataclasses their key (`<name>.logits`). Values that are no tensors, and
    key-value caches, are passed over. Each call of a module is an occurrence; recomputations in backward are not.

    Modules without parts are labelled as operations, the model itself as model. torch's own wrappers (compile,
    checkpoint, FSDP, DistributedDataParallel, DataParallel) add nothing to the names.

    Hooks run in the order of their registration: what a hook registered later makes of an output is not seen. A module
    that is watched already on this side is not labelled twice. Copies of the model are not watched. torch.jit.script
    refuses a watched model, as any whose hooks it cannot compile: script it before. A hook on TransformerEncoderLayer,
    or inside, makes torch leave its fused kernel for the layer in eval; MultiheadAttention keeps its own, in which
    its `out_proj` is not called (torch 2.13).

    Without the launcher nothing is registered. Otherwise a wrong argument, nothing to watch, or two modules with one
    id raise LabelError, here and never while the model runs.
    """
    if not is_on():
        return Watch()
    from aclcmp.labeling.watch.install import Hooks

    return Watch(Hooks(model, side, include, exclude, inputs, rename, prefix, layouts))


def _report_all() -> None:
    if hasattr(sys, "last_value"):  # the script ended with an exception, which tells more
        return
    for handle in list(_live):
        handle._report_silent()


if is_on():
    atexit.register(_report_all)
