"""`watch` and the handle that it returns: labels by hooks on a model's modules, under the modules' names.

Programs that label nothing import this module too, so the hooks themselves are imported by the first watch.
"""

from __future__ import annotations

import atexit
import sys
from typing import TYPE_CHECKING, Any

from aclcmp.labeling.api import is_on
from aclcmp.labeling.errors import LabelError

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
    weights: bool | int = False,
) -> Watch:
    """Label the outputs of a model's modules under the modules' names. Models with equal names need no id map.

    Args:
        model: a torch.nn.Module, which may be compiled or wrapped.
        side: "pta" (or "golden"), "acl" (or "actual"), or "ref" (or "reference").
        include: the modules to watch: globs over dotted names, where `*` matches within a part and `**` across parts
            (`"layers.*.mlp"`, `"**.self_attn"`), or compiled regular expressions that match the whole name. By default
            all modules with a forward; the model itself is `"forward"`.
        exclude: the modules not to watch, and single tensors by their ids (below): `"**.self_attn.1"` drops the second
            tensor of a tuple.
        inputs: label the inputs of the modules too, before they run: `<name>.input`, `<name>.input.1`, and
            `<name>.input.<key>` for keywords.
        rename: {glob: replacement}. Stars are filled in by position, modules inside a renamed one follow it, and None
            skips the module. Or a function that returns the new name, or None. `""` is the model itself:
            `{"module.**": "**"}` removes a wrapper from the names, and the wrapper's own label.
        prefix: put before all ids, with a dot. It is also the id of the model itself if that is watched.
        layouts: take the layouts of plain tensors from the model's transformers TP plan or its DTensor weights, where
            these state them for certain. (A DTensor always carries its own.)
        weights: hash each row of the model's parameters, as they are now, so that the report says which rows of
            golden's weights each rank of the actual side holds. Watch both sides with it. Where the actual side has
            more ranks than golden, give golden their number: columns that ranks cut are hashed as they cut them.

    The first tensor of a tuple has the module's name, so `(hidden, None)` pairs with `hidden`. Further tensors add
    their position (`<name>.1`), those of dicts and dataclasses their key (`<name>.logits`). Other values, and key-value
    caches, are skipped. Each call of a module is an occurrence; recomputations in backward are not.

    Modules without parts have the level "op", the model itself "model". torch's own wrappers (compile, checkpoint,
    FSDP, DistributedDataParallel, DataParallel) add nothing to the names.

    Hooks run in the order of their registration, so changes by a hook that is registered later are not seen. A module
    that is already watched on this side is not labelled twice. Copies of the model are not watched. torch.jit.script
    refuses a watched model, because it cannot compile the hooks: script the model first. A hook on
    TransformerEncoderLayer, or inside it, keeps torch from using the layer's fused kernel in eval mode;
    MultiheadAttention keeps its own kernel, which does not call its `out_proj` (torch 2.13).

    Without the launcher, or a block of `aclcmp.record()`, nothing is registered. Otherwise LabelError is raised for a
    wrong argument, for nothing to watch, and for two modules with one id: always here, and never while the model runs.
    """
    if not is_on():
        return Watch()
    from aclcmp.labeling.watch.install import Hooks

    if not isinstance(weights, int) or weights < 0:
        raise LabelError(f"watch: weights={weights!r} is neither True, nor False, nor a number of ranks")
    handle = Watch(Hooks(model, side, include, exclude, inputs, rename, prefix, layouts))
    if weights:
        from aclcmp.labeling.identity import distributed_identity, rank_identity
        from aclcmp.labeling.layout import divisors
        from aclcmp.labeling.weights import hash_weights

        ranks = distributed_identity(rank_identity()).world_size
        parts = sorted({*divisors(ranks), *divisors(int(weights))})
        hash_weights(model, side, labels=handle.ids, parts=parts)
    return handle


def live_handles() -> set[Watch]:
    """Return the handles whose hooks are in place."""
    return set(_live)


def _report_all() -> None:
    if hasattr(sys, "last_value"):  # the script ended with an exception, which tells more
        return
    for handle in list(_live):
        handle._report_silent()


if is_on():
    atexit.register(_report_all)
