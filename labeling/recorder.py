"""The recorder behind `set_label`: it counts, copies and commits labels, and never breaks the model."""

from __future__ import annotations

import atexit
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.arguments import check_id, check_inputs, check_side, check_task, check_values, plain_id
from aclcmp.labeling.capture import Budget, Capture
from aclcmp.labeling.device_graphs import clone_in_graph, is_in_graph
from aclcmp.labeling.errors import LabelError, ShardError
from aclcmp.labeling.identity import (
    CAPTURE,
    SHARD_DIR,
    STRICT,
    RankIdentity,
    distributed_identity,
    rank_identity,
    ranks_here,
)
from aclcmp.labeling.label_filter import LabelFilter
from aclcmp.labeling.library_dumps import WantedFiles, dump_folders, map_of_wanted_files, stop_dumping
from aclcmp.labeling.rows import PADDING, Rows, current_rows
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.margin_table import GRADIENT, MARGIN, Margin, pack_margin
from aclcmp.labeling.shard.price_table import PRICE, Price, pack_price
from aclcmp.labeling.shard.record import GRADIENTS, ROWS, SIDE_NAMES, WEIGHTS, LabelRecord
from aclcmp.labeling.shard.row_table import (
    BLOCKS,
    REQUESTS,
    TABLE,
    TOKENS,
    pack_blocks,
    pack_request,
    pack_token_texts,
)
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.labeling.shard.weight_table import HASHES, PARAMETERS, WeightTable
from aclcmp.labeling.tensors import LabelledTensor, check_dense, labelled_tensor

if TYPE_CHECKING:
    from multiprocessing.util import Finalize


class Recorder:
    """The labels of one process, recorded into one shard. Thread-safe; a forked child gets a recorder of its own."""

    def __init__(
        self,
        folder: Path,
        header: ShardHeader,
        strict: bool,
        capture: Capture,
        selection: LabelFilter,
        task: int = -1,
        *,
        alone: bool = False,
    ) -> None:
        """Record into `folder`. `task` is the one under way, -1 for none; `alone`: rank 0 of 1 whatever its group."""
        self._folder = folder
        self._alone = alone
        self._header = header
        self._strict = strict
        self._capture = capture
        self._selection = selection
        self._task = task
        self._seq = 0
        self._occurrences: dict[tuple[int, str, str], int] = {}
        self._requests: dict[tuple[int, str], int] = {}
        """Numbers of requests in the shard, by task and name."""
        self._tables: WeakKeyDictionary[Rows, tuple[int, int]] = WeakKeyDictionary()
        """Names of rows that are stored: the task of their requests, and the number of their record."""
        self._warned: set[str] = set()
        self._skipped: set[str] = set()
        self._lock = threading.RLock()  # re-entrant: a signal handler may label too
        self._writer: ShardWriter | None = None
        self._budget: Budget | None = None
        self._wanted = WantedFiles(map_of_wanted_files())
        self._finalizer: Finalize | None = None
        self._closed = False
        self._unwritable = ""
        """Why no shard can be opened. Opening is tried once: a script may set a million labels."""

    @staticmethod
    def from_environment() -> Recorder:
        """Return a recorder made from the launcher's environment; it is closed when the process exits."""
        folder = Path(os.environ[SHARD_DIR])
        strict = os.environ.get(STRICT) == "1"
        try:
            selection, capture = LabelFilter.from_environment(), Capture(os.environ.get(CAPTURE) or Capture.FULL)
        except ValueError as error:
            _say(f"all labels are recorded in full: {error}")
            selection, capture = LabelFilter(), Capture.FULL
        return Recorder(folder, _header(), strict, capture, selection, _inherited_task())

    @staticmethod
    def of_this_process(folder: Path) -> Recorder:
        """Return a recorder of a process by itself, rank 0 of 1, whatever job it belongs to."""
        return Recorder(folder, _lone_header(), False, Capture.FULL, LabelFilter(), alone=True)

    @property
    def task(self) -> int:
        """The number of the task that labels belong to."""
        return max(self._task, 0)

    def start_task(self, number: Any, call_site: str) -> None:
        """Start the next task, or that of a number, and set the variable by which libraries name their dump folder.

        Raises LabelError for an impossible number, only when strict.
        """
        with self._lock:
            try:
                following = self._task + 1 if number is None else check_task(number)
            except LabelError as error:
                self.skip("", "set_task_id", str(error), call_site)
                return
            if self._budget is not None:
                with suppress(OSError):
                    self._budget.end_task(max(self._task, 0))
            self._task = following
            self._name_task()

    def record(
        self,
        data_src: Any,
        data_id: Any,
        data_val: Any,
        tensor_path: Any,
        layout: Any,
        level: Any,
        inputs: Any,
        call_site: str,
        rows: Any = None,
        own_task: Any = None,
    ) -> None:
        """Record one label. Raises only when strict: LabelError for a wrong argument, ShardError for a failing disk.

        In a device graph that is captured, record it after each replay.
        """
        if is_in_graph(data_val):
            self.label_replays(
                data_src,
                data_id,
                data_val,
                call_site,
                lambda clone: self.record(
                    data_src, data_id, clone, tensor_path, layout, level, inputs, call_site, rows, own_task
                ),
            )
            return
        with self._lock:
            if self._closed and self._alone:  # its block has ended; a thread or a device graph of it goes on
                return
            task, occurrence, problem = max(self._task, 0), 0, None
            if own_task is not None:
                try:
                    task = check_task(own_task)
                except LabelError as error:
                    problem = error
            if not self._selection.wants(task, data_id):
                return
            seq, self._seq = self._seq, self._seq + 1
            sources: tuple[str, ...] = ()
            try:
                side, name = check_side(data_src), check_id(data_id)
                occurrence = self._next_occurrence((task, name, side))  # counted first: a failed label has one too
                if problem is not None:
                    raise problem
                sources = check_inputs(inputs)
                check_values(side, data_val, tensor_path, level)
                writer = self._open_writer()
                if data_val is None:
                    path = os.fsdecode(tensor_path)
                    self._wanted.add(path)
                    if self._budget is not None:
                        self._budget.before_a_dump()
                    writer.note(
                        LabelRecord(
                            task=task,
                            data_id=name,
                            occurrence=occurrence,
                            side=side,
                            seq=seq,
                            time=time.time(),
                            call_site=call_site,
                            tensor_path=path,
                            level=level,
                            inputs=sources,
                        )
                    )
                    return
                tensor = labelled_tensor(data_val, layout)
                rows = current_rows() if rows is None else rows
                names = self._rows_record(writer, rows, task)
                if names > seq:  # their record comes first
                    seq, self._seq = self._seq, self._seq + 1
                bits, capture = self._stored_bytes(tensor, 0 if rows is None else rows.named.table.size // 3)
                label = LabelRecord(
                    task=task,
                    data_id=name,
                    occurrence=occurrence,
                    side=side,
                    seq=seq,
                    time=time.time(),
                    call_site=call_site,
                    dtype=tensor.dtype,
                    shape=tensor.shape,
                    device=tensor.device,
                    layout=tensor.layout,
                    level=level,
                    capture=capture.value,
                    inputs=sources,
                    rows=names,
                )
                writer.add(label, bits)
            except Exception as error:  # whatever it is, it must not reach the model
                side = SIDE_NAMES.get(data_src, "") if isinstance(data_src, str) else ""
                failed = LabelRecord(
                    task=task,
                    data_id=plain_id(data_id),
                    occurrence=occurrence,
                    side=side,
                    seq=seq,
                    time=time.time(),
                    call_site=call_site,
                    error=_reason(error),
                    inputs=sources,
                )
                self._note_failure(failed, error)

    def label_replays(
        self, data_src: Any, data_id: Any, data_val: Any, call_site: str, record: Callable[[Any], None]
    ) -> None:
        """Let `record` label what a device graph in capture computes, after each replay. Raises only when strict."""
        if isinstance(data_id, str) and not self._selection.selects(data_id):
            return
        try:
            check_dense(sys.modules["torch"], data_val)
            clone_in_graph(data_val, record)
        except LabelError as error:
            self.skip(data_src, data_id, str(error), call_site)

    def skip(self, data_src: Any, data_id: Any, reason: str, call_site: str) -> None:
        """Note a label that cannot be recorded at its place, once for each place and id. Raises only when strict."""
        with self._lock:
            task, side = max(self._task, 0), SIDE_NAMES.get(data_src, "") if isinstance(data_src, str) else ""
            place = f"{call_site} {side} {data_id}"
            if place in self._skipped or not self._selection.wants(task, data_id):
                return
            self._skipped.add(place)
            self.fail(data_src, data_id, reason, call_site)

    def fail(self, data_src: Any, data_id: Any, reason: str, call_site: str) -> None:
        """Note one call of a label as failed. Raises only when strict."""
        with self._lock:
            task, side = max(self._task, 0), SIDE_NAMES.get(data_src, "") if isinstance(data_src, str) else ""
            if not self._selection.wants(task, data_id):
                return
            seq, self._seq = self._seq, self._seq + 1
            name = plain_id(data_id)
            occurrence = self._next_occurrence((task, name, side))
            label = LabelRecord(task, name, occurrence, side, seq, time.time(), call_site, error=reason)
            self._note_failure(label, LabelError(reason))

    def record_weights(self, table: WeightTable) -> None:
        """Store the hashes of a model's weights. Raises ShardError for a failing disk, only when strict."""
        with self._lock:
            try:
                writer = self._open_writer()
                hashes = self._write_table(writer, WEIGHTS, HASHES, "uint64", table.hashes())
                self._write_table(writer, WEIGHTS, PARAMETERS, "uint8", table.facts(hashes))
            except Exception as error:
                _say(f"the hashes of weights cannot be stored: {_reason(error)}")
                if self._strict:
                    raise ShardError(f"the hashes of weights cannot be stored: {_reason(error)}") from error

    def close(self, *, seal: bool = True) -> None:
        """Seal the shard. One that is not, or that cannot be sealed, stays readable through its journal."""
        with self._lock:
            self._closed = True
            if self._writer is None:
                return
            atexit.unregister(self.close)
            if self._finalizer is not None:
                self._finalizer.cancel()
            try:
                if seal:
                    self._writer.close()
                else:
                    self._writer.detach()
            except Exception as error:
                _say(f"cannot seal {self._writer.files.stem} ({_reason(error)}); its journal keeps every label")
            self._writer = None

    def before_fork(self) -> None:
        """Lock the recorder, so that the child gets a consistent copy."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Unlock the recorder."""
        self._lock.release()

    def after_fork_in_child(self) -> Recorder:
        """Detach from the parent's shard and return a recorder for this process."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.detach()
            self._writer = None  # the parent's close, inherited with its atexit list, must find nothing
        self._lock.release()
        if "AIT_CMP_TASK_ID" in os.environ:
            self._name_task()
        return self.successor()

    def successor(self) -> Recorder:
        """Return a recorder that goes on in the same task, into another shard of the same folder."""
        header = _lone_header() if self._alone else _header()
        return Recorder(
            self._folder, header, self._strict, self._capture, self._selection, self._task, alone=self._alone
        )

    def _name_task(self) -> None:
        os.environ["AIT_CMP_TASK_ID"] = f"{os.getpid()}_{max(self._task, 0)}"

    def _open_writer(self) -> ShardWriter:
        if self._closed:
            raise ShardError("the process is exiting and its shard is sealed")
        if self._unwritable:
            raise ShardError(self._unwritable)
        if self._writer is None:
            if not self._alone:
                self._header = _with_current_rank(self._header)
            try:
                self._writer = ShardWriter(self._folder, self._header)
                self._budget = Budget(self._folder, self._capture, ranks_here(), _say, stop_dumping)
            except OSError as error:
                self._unwritable = f"cannot write into {self._folder}: {_reason(error)}"
                raise ShardError(self._unwritable) from error
            self._close_at_exit()
        return self._writer

    def _stored_bytes(self, tensor: LabelledTensor, rows: int) -> tuple[npt.NDArray[np.uint8], Capture]:
        """Return the bytes to store: of the tensor, or of its summary where that is asked for and smaller.

        `rows` is the number of its rows that have names.
        """
        assert self._budget is not None
        capture = self._budget.capture_for(tensor.nbytes)
        if capture is not Capture.FULL:
            from aclcmp.labeling.summarised import packed_summary

            summary = packed_summary(tensor, rows, sketch=capture is Capture.FINGERPRINT)
            if summary is not None:
                return summary, capture
        return tensor.bits(), Capture.FULL

    def _close_at_exit(self) -> None:
        atexit.register(self.close)
        if "multiprocessing.process" in sys.modules:  # its children leave by os._exit, past atexit
            from multiprocessing.util import Finalize

            self._finalizer = Finalize(None, self.close, exitpriority=0)

    def _rows_record(self, writer: ShardWriter, rows: Any, task: int) -> int:
        """Return the number of the record that names the rows of a label, which the first such label writes; -1: none.

        Raises LabelError where the names are impossible.
        """
        if rows is None:
            return -1
        if not isinstance(rows, Rows):
            raise LabelError(f"rows is a {type(rows).__name__}; give aclcmp.rows(requests, positions, token_ids)")
        of_task, number = self._tables.get(rows, (-1, -1))
        if of_task == task:
            return number
        named = rows.named
        numbers = np.array(
            [
                *(self._request_number(writer, (task, name), named.prompts.get(name, ())) for name in named.requests),
                PADDING,
            ]
        )
        table = named.table.copy()
        table[..., 0] = numbers[table[..., 0]]  # PADDING is -1, the last of them
        number = self._write_table(writer, ROWS, TABLE, "int32", table)
        if named.blocks is not None:
            self._write_table(writer, ROWS, BLOCKS, "int64", pack_blocks(number, named.blocks))
        self._tables[rows] = task, number
        return number

    def _request_number(self, writer: ShardWriter, request: tuple[int, str], prompt: Sequence[int]) -> int:
        number = self._requests.get(request)
        if number is None:
            number = len(self._requests)
            packed = pack_request(number, request, prompt)
            self._write_table(writer, ROWS, REQUESTS, "uint8", packed)
            self._requests[request] = number
        return number

    def _write_table(
        self, writer: ShardWriter, side: str, data_id: str, dtype: str, value: npt.NDArray[Any], rows: int = -1
    ) -> int:
        """Store what is no tensor of the model; return the number of the record. Raises OSError."""
        seq, self._seq = self._seq, self._seq + 1
        occurrence = self._next_occurrence((0, data_id, side))
        record = LabelRecord(
            0,
            data_id,
            occurrence,
            side,
            seq,
            time.time(),
            "",
            dtype=dtype,
            shape=value.shape,
            device="numpy",
            rows=rows,
        )
        writer.add(record, np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        return seq

    def name_tokens(self, texts: Mapping[int, str]) -> None:
        """Store the texts of tokens by their ids; a failing disk is told and keeps nothing else from going on."""
        with self._lock:
            try:
                self._write_table(self._open_writer(), ROWS, TOKENS, "uint8", pack_token_texts(texts))
            except Exception as error:
                _say(f"the texts of tokens cannot be recorded ({_reason(error)}): reports tell their ids")

    def record_margin(
        self, margin: Margin, points: Iterable[tuple[str, Sequence[str], npt.NDArray[Any], Rows]]
    ) -> None:
        """Store the gradients of a margin, float32: at each point its name, labels, [rows, features] and their rows.

        A failing disk is told and keeps nothing else from going on.
        """
        with self._lock:
            try:
                writer = self._open_writer()
                stored = []
                for name, labels, value, rows in points:
                    names = self._rows_record(writer, rows, 0)
                    seq = self._write_table(writer, GRADIENTS, GRADIENT, "float32", value, names)
                    stored.append((name, labels, seq))
                self._write_table(writer, GRADIENTS, MARGIN, "uint8", pack_margin(margin, stored))
            except Exception as error:
                _say(f"the gradients of a margin cannot be recorded ({_reason(error)}): no layer is told for its token")

    def record_price(self, price: Price) -> None:
        """Store what quantisation costs. Raises OSError: without it a report does not know that golden is quantised."""
        with self._lock:
            self._write_table(self._open_writer(), ROWS, PRICE, "uint8", pack_price(price))

    def _next_occurrence(self, key: tuple[int, str, str]) -> int:
        number = self._occurrences.get(key, 0)
        self._occurrences[key] = number + 1
        return number

    def _note_failure(self, label: LabelRecord, error: Exception) -> None:
        if label.error not in self._warned:
            self._warned.add(label.error)
            _say(f"label {label.data_id!r} ({label.side or 'no side'}) at {label.call_site} failed: {label.error}")
        try:
            self._open_writer().note(label)
        except Exception as second:
            if "unwritable" not in self._warned:
                self._warned.add("unwritable")
                _say(f"failed labels cannot even be noted in {self._folder}: {_reason(second)}")
        if self._strict:
            if isinstance(error, (LabelError, ShardError)):
                raise error
            raise ShardError(f"label {label.data_id!r} could not be recorded: {label.error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(f"{error}".split()) or type(error).__name__


def _say(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # a daemon has no stderr, or a closed one
        sys.stderr.write(f"aclcmp: {text}\n")


def _inherited_task() -> int:
    """Return the task that `set_task_id` set in the parent process; -1 for none."""
    _, _, number = os.environ.get("AIT_CMP_TASK_ID", "").rpartition("_")
    return int(number) if number.isdecimal() else -1


def _with_current_rank(header: ShardHeader) -> ShardHeader:
    """Return a header with the rank of now: a process group may have been made in the meantime."""
    identity = RankIdentity(header.run_id, header.rank, header.world_size, header.local_rank)
    current = distributed_identity(identity)
    return replace(header, rank=current.rank, world_size=current.world_size, local_rank=current.local_rank)


def _lone_header() -> ShardHeader:
    return replace(_header(), run_id="", rank=0, world_size=1, local_rank=0)


def _header() -> ShardHeader:
    identity = rank_identity()
    versions = {"python": platform.python_version()}
    for package in ("aclcmp", "numpy", "h5py", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return ShardHeader(
        run_id=identity.run_id,
        rank=identity.rank,
        world_size=identity.world_size,
        local_rank=identity.local_rank,
        process=0,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=time.time(),
        versions=versions,
        dump_folders=dump_folders(),
    )
