"""The public calls. Off unless launched or switched on: without a recorder each returns at once, importing nothing."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from aclcmp.labeling import torchscript
from aclcmp.labeling.graphs import (
    COMPILED,
    SCRIPTED,
    must_not_break,
    skip_tracing,
    traced_local,
    traced_site,
    tracing_dynamo,
)
from aclcmp.labeling.identity import GOLDEN, INJECT, RUN_ID, SHARD_DIR, STRICT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aclcmp.labeling.recorder import Recorder
    from aclcmp.labeling.rows import Rows
    from aclcmp.labeling.shard.margin_table import Margin
    from aclcmp.labeling.shard.price_table import Price
    from aclcmp.labeling.shard.weight_table import WeightTable

_on = bool(os.environ.get(SHARD_DIR))
_local = bool(os.environ.get(GOLDEN)) and not os.environ.get(INJECT)
_recorder: Recorder | None = None
_stamp = os.environ.get(RUN_ID) or time.strftime("%Y%m%d-%H%M%S")
_ids = itertools.count()
_making = threading.RLock()


def _live_recorder() -> Recorder | None:
    """Return this process's recorder; None, from then on, where there can be none."""
    global _recorder
    if _recorder is None and SHARD_DIR in os.environ:
        try:
            from aclcmp.labeling.recorder import Recorder

            with _making:
                if _recorder is None:
                    _recorder = Recorder.from_environment()
        except Exception as error:
            _turn_off(error)
    return _recorder


def _turn_off(error: Exception) -> None:
    """Record no more labels: a fault of this tool must not break the script, unless the run is strict."""
    global _on
    _on = False
    if sys.stderr is not None:
        sys.stderr.write(f"aclcmp: labels are off: {type(error).__name__}: {error}\n")
    if os.environ.get(STRICT) == "1":
        raise error


def set_label(
    data_src: str,
    data_id: str,
    data_val: Any = None,
    tensor_path: str | None = None,
    *,
    layout: Any = None,
    level: str = "",
    inputs: Sequence[str] | None = None,
    rows: Rows | None = None,
    task: int | None = None,
) -> None:
    """Record one tensor under an id; the tensor with the same id on the other side is its counterpart.

    Args:
        data_src: the side: "pta" (or "golden") for the framework's own computation, "acl" (or "actual") for the
            accelerated one; "ref" (or "reference") for golden's computation in higher precision. A reference is not
            compared with the accelerated side: golden's distance from it shows how much of a difference is noise.
        data_id: the name of the tensor. The same id on both sides makes a pair. When the same (task, id, side) comes
            again it is the next occurrence; occurrences are paired in order.
        data_val: torch.Tensor (any device, any shape, any dtype of aclcmp.labeling.shard.dtypes; DTensor) or
            numpy array. It is copied before the call returns, so later changes do not matter.
        tensor_path: on the acl side, instead of data_val, a file that the accelerated library dumps later.
        layout: how a rank's tensor is part of the whole: `Shard(dim)`, `Replicate()` or `Partial()`, or a sequence of
            them, one for each mesh dimension. Without it the layout is inferred from shapes and values where possible.
        level: the part that was replaced, "op", "layer" or "model"; derived from the id if it is not given.
        inputs: ids of the labels that this one was computed from, e.g. `["x", "layers.0.attention"]` (at most 1,024).
            An error began in a wrong label whose inputs are right; without `inputs` all labels before it count as them.
        rows: which token each row is, `aclcmp.rows(...)`; by default those of the `with aclcmp.rows(...)` around it.
        task: the number of the task that the label belongs to, for scripts that serve several requests at once; by
            default that of the last `set_task_id()`. It counts for this label only.

    Never raises into the caller: a label that cannot be recorded is reported as failed, with its reason. With
    `--strict` it raises LabelError (wrong argument) or ShardError (disk). `torch.compile` breaks its graph at the call
    and the label is recorded. Where the graph must not break (fullgraph=True, torch.export), and under torch.jit,
    torch.func and FakeTensorMode, the label is skipped and reported as failed. In a device graph (a CUDA graph, an ACL
    graph) it is recorded after each replay, in the task and rows of then, where a tensor of the device was labelled or
    a model watched before that graph was captured.
    """
    if not _on or _skipped_in_graph():
        return
    _record_from(data_src, data_id, data_val, tensor_path, layout, level, inputs, rows, task)


def _record_from(
    data_src: Any,
    data_id: Any,
    data_val: Any,
    tensor_path: Any,
    layout: Any,
    level: Any,
    inputs: Any,
    rows: Any,
    task: Any,
) -> None:
    """Record what `set_label` was given; its caller is the call site."""
    frame = sys._getframe(2)
    site = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    if recorder := _live_recorder():
        if _local and data_src in ("acl", "actual"):
            recorder.fail("acl", data_id, "set_label gets no value of golden's; with --local watch the model", site)
            return
        recorder.record(data_src, data_id, data_val, tensor_path, layout, level, inputs, site, rows, task)


def _skipped_in_graph() -> bool:
    """Tell whether the caller, a public call, is traced into a graph that must not break; note the label as skipped.

    Dynamo does not trace this function: it calls it while it traces the caller, and treats the answer as a constant.
    """
    translator = tracing_dynamo()
    if translator is None:
        return False
    if not must_not_break(translator):
        skip_tracing(set_label, _record_from, set_task_id, _start_task)
        return False
    call, site = translator.f_code.co_name, traced_site(translator)
    name = traced_local(translator, "data_id") or f"label at {site}" if call == "set_label" else call
    if recorder := _live_recorder():
        recorder.skip(traced_local(translator, "data_src"), name, COMPILED, site)
    return True


def rows(
    requests: Any = None, positions: Any = None, token_ids: Any = None, *, mask: Any = None
) -> AbstractContextManager[Any]:
    """Say which token each row of the labels inside `with aclcmp.rows(...)` is, for engines that mix requests.

    Args:
        requests: the request of each row, texts or numbers, n of them; one alone if all rows belong to it. Of a padded
            batch one for each of its B lines. The two sides' requests pair by their token ids, else by these names.
        positions: the position of each row in its request, n integers from 0.
        token_ids: the token of each row, n integers; the report shows them, and rows of other tokens do not pair.
        mask: instead of positions, an attention mask of [B, T] for a padded batch: only rows where it is not 0 count.

    Labels inside are sets of rows: each pairs with the row of the same request and position on the other side, wherever
    that lies, in whatever batch, step or rank. The dimensions that carry rows are found by their size ([n, H],
    [1, n, H], [B, T, H], [T, B, H], [n, heads, d]). Arrays, lists and tensors are copied before the call returns.
    Never raises: labels fail that refer to impossible rows.
    """
    if not _on:
        return nullcontext()
    from aclcmp.labeling.rows import Rows

    return Rows(requests, positions, token_ids, mask)


def is_on() -> bool:
    """Tell whether labels are recorded: in processes that the launcher started, and while a process records itself."""
    return _on


def switch_to(recorder: Recorder | None) -> Recorder | None:
    """Record labels with `recorder` from now on, in a process that the launcher did not start; None: no labels.

    Return the recorder from before.
    """
    global _on, _recorder
    if recorder is not None:
        _follow_forks()
    before, _recorder, _on = _recorder, recorder, recorder is not None
    return before


def record_at(call_site: str, data_src: str, data_id: str, data_val: Any, layout: Any = None, level: str = "") -> None:
    """Label a tensor like `set_label`, at a call site that the caller gives instead of the stack."""
    if _on and (recorder := _live_recorder()):
        recorder.record(data_src, data_id, data_val, None, layout, level, None, call_site)


def label_replays_at(call_site: str, data_src: str, data_id: str, data_val: Any, record: Callable[[Any], None]) -> None:
    """Let `record` label what a device graph in capture computes, after each of its replays."""
    if _on and (recorder := _live_recorder()):
        recorder.label_replays(data_src, data_id, data_val, call_site, record)


def name_tokens(texts: Mapping[int, str]) -> None:
    """Record the texts of tokens by their ids, for reports."""
    if _on and (recorder := _live_recorder()):
        recorder.name_tokens(texts)


def record_margin(margin: Margin, points: Iterable[tuple[str, Sequence[str], Any, Rows]]) -> None:
    """Record how a margin between two tokens depends on labels, for reports."""
    if _on and (recorder := _live_recorder()):
        recorder.record_margin(margin, points)


def record_price(price: Price) -> None:
    """Record what the quantisation of golden's checkpoint costs."""
    if _on and (recorder := _live_recorder()):
        recorder.record_price(price)


def skip_at(call_site: str, data_src: str, data_id: str, reason: str) -> None:
    """Note a label that cannot be recorded as failed, once for each call site and id."""
    if _on and (recorder := _live_recorder()):
        recorder.skip(data_src, data_id, reason, call_site)


def fail_at(call_site: str, data_src: str, data_id: str, reason: str) -> None:
    """Note that a call has no label, as one that failed."""
    if _on and (recorder := _live_recorder()):
        recorder.fail(data_src, data_id, reason, call_site)


def is_local() -> bool:
    """Tell whether labels of the actual side count only where they are computed from golden's values (`--local`)."""
    return _local


def current_task() -> int:
    """Return the number of the task to which labels belong now."""
    recorder = _live_recorder() if _on else None
    return 0 if recorder is None else recorder.task


def record_weights(table: WeightTable) -> None:
    """Store the hashes of a model's weights."""
    if _on and (recorder := _live_recorder()):
        recorder.record_weights(table)


def gen_id() -> str:
    """Return `data_<run stamp>_<n>` for the n-th call in this process: equal on ranks that run the same code."""
    return f"data_{_stamp}_{next(_ids)}"


def set_task_id(number: int | None = None) -> None:
    """Start the next task (a turn of a dialogue, or a step). The first call starts task 0, as if there were no call.

    With a number, go on with the task of that number, 0 or more, also one that was left before: its labels go on with
    their occurrences. Never raises into the caller: an impossible number is reported as a failed label, and the task
    stays. With `--strict` it raises LabelError.
    """
    if _on and not _skipped_in_graph():
        _start_task(number)


def _start_task(number: Any) -> None:
    """Start a task; the caller of its caller is the call site."""
    frame = sys._getframe(2)
    if recorder := _live_recorder():
        recorder.start_task(number, f"{frame.f_code.co_filename}:{frame.f_lineno}")


def _note_script() -> None:
    """Note that torch.jit.script compiles code with public calls; it does not tell which labels are in it."""
    if _on and (recorder := _live_recorder()):
        recorder.skip("", "torch.jit.script", SCRIPTED, "scripted code")


# torch.compiler.assume_constant_result and torch.compiler.disable set these too, but would need torch.
vars(_skipped_in_graph)["_dynamo_marked_constant"] = True
vars(_record_from)["_torchdynamo_disable"] = True
vars(_start_task)["_torchdynamo_disable"] = True
for _call in (set_label, set_task_id, gen_id):
    torchscript.substitute(_call, getattr(torchscript, _call.__name__), _note_script)


def _before_fork() -> None:
    _making.acquire()
    if _recorder is not None:
        _recorder.before_fork()


def _after_fork_in_parent() -> None:
    if _recorder is not None:
        _recorder.after_fork_in_parent()
    _making.release()


def _after_fork_in_child() -> None:
    global _recorder
    if _recorder is not None:
        _recorder = _recorder.after_fork_in_child()
    _making.release()


@cache
def _follow_forks() -> None:
    """From now on, give forked children recorders of their own. Raises what importing a broken h5py does."""
    # Not at the first label: h5py must have registered its own fork handlers before ours, so that a fork takes our
    # locks first, in the order in which a label takes them.
    importlib.import_module("aclcmp.labeling.recorder")
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


if _on:
    try:
        _follow_forks()
    except Exception as error:
        _turn_off(error)
