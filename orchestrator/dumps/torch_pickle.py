"""The pickle in an archive that `torch.save` wrote, read by a small machine that runs nothing.

It is safe on any bytes. It makes plain values, lists, dicts, tuples and the frozen classes below, and looks names up in
the tables of this file only: nothing is imported, no attribute is read or set, and nothing is called but the functions
in `_BUILDERS`, which check their arguments. An opcode makes at most one object, objects are counted, and nothing nested
is hashed, compared, printed or walked here: memory and time grow with the length of the pickle only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import printable

_MOST_OBJECTS = 2_000_000
"""Lists, dicts, tuples, marks, names, calls and memo entries in a pickle; a tensor takes about twenty."""
_LONGEST = 64
"""Dimensions of a shape, which are as many as numpy's, arguments of a function and parts of a key."""
_LARGEST_KEY = 1 << 60  # Python's hash of a larger integer is that of a smaller one: such keys make a dict slow
_LARGEST = 1 << 62
_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.UntypedStorage": "uint8",
    "torch.storage.UntypedStorage": "uint8",
}
"""The dtype of each class of storages; one of `UntypedStorage` is counted in bytes."""
_DTYPES = {f"torch.{name}": name for name in DTYPES}


@dataclass(frozen=True, slots=True)
class Storage:
    """Elements in a record of the archive, which several tensors may share."""

    key: str
    """The record's name below `data/`."""
    dtype: str
    size: int
    """Number of elements."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as views of storages are pickled; shape, strides and offset are numbers of elements, checked to fit."""

    storage: Storage | None
    """None for a tensor without values (device meta)."""
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_dense(self) -> bool:
        """True where the elements lie in C order without gaps."""
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True


@dataclass(frozen=True, slots=True)
class PickledContent:
    """Content of a pickle."""

    value: Any
    """Nested lists, tuples and dicts of plain values, StoredTensors, and objects that are neither."""
    needs_torch: str = ""
    """The first thing in it that is left to torch, "" where there is none; `value` is incomplete then."""


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that the pickle refers to."""

    name: str


_FOREIGN = _Global("foreign")
"""Stands for everything that is left to torch."""
_OTHER = _Global("other")
"""Stands for objects that are neither tensors nor plain values, such as devices and bytes."""


def read_pickle(content: bytes) -> PickledContent:
    """Return what a pickle holds. Raises ValueError when it is damaged, or torch.save writes no such."""
    machine = _Machine(content)
    try:
        value = machine.run()
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError("its pickle is truncated or damaged") from error
    return PickledContent(value, machine.needs_torch)


class _Machine:
    """Pickle's stack machine with the opcodes of protocol 2 that torch.save writes."""

    def __init__(self, content: bytes) -> None:
        self.needs_torch = ""
        self._content = content
        self._at = 0
        self._stack: list[Any] = []
        self._outer_stacks: list[list[Any]] = []
        """Below each mark the stack that was in use before it."""
        self._memo: dict[int, Any] = {}
        self._objects_left = _MOST_OBJECTS

    def run(self) -> Any:
        while (opcode := self._take(1)) != b".":
            step = _OPCODES.get(opcode)
            if step is None:
                raise ValueError(f"its pickle has the opcode {opcode.hex()}, which torch.save does not write")
            step(self)
        return self._stack.pop()

    def proto(self) -> None:
        self._take(1)

    def mark(self) -> None:
        self._count()
        self._outer_stacks.append(self._stack)
        self._stack = []

    def put(self) -> None:
        self._remember(self._take(1)[0])

    def long_put(self) -> None:
        self._remember(self._number("<I", 4))

    def get(self) -> None:
        self._stack.append(self._memo[self._take(1)[0]])

    def long_get(self) -> None:
        self._stack.append(self._memo[self._number("<I", 4)])

    def none(self) -> None:
        self._stack.append(None)

    def true(self) -> None:
        self._stack.append(True)

    def false(self) -> None:
        self._stack.append(False)

    def one_byte(self) -> None:
        self._stack.append(self._take(1)[0])

    def two_bytes(self) -> None:
        self._stack.append(self._number("<H", 2))

    def four_bytes(self) -> None:
        self._stack.append(self._number("<i", 4))

    def long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def real(self) -> None:
        self._stack.append(self._number(">d", 8))

    def text(self) -> None:
        self._stack.append(self._take(self._number("<I", 4)).decode("utf-8", "surrogatepass"))

    def old_text(self) -> None:
        self._take(self._take(1)[0])
        self._stack.append(self._leave_to_torch("text of Python 2"))

    def empty_list(self) -> None:
        self._count()
        self._stack.append([])

    def empty_dict(self) -> None:
        self._count()
        self._stack.append({})

    def empty_tuple(self) -> None:
        self._stack.append(())

    def one_tuple(self) -> None:
        self._tuple_of(1)

    def two_tuple(self) -> None:
        self._tuple_of(2)

    def three_tuple(self) -> None:
        self._tuple_of(3)

    def tuple_from_mark(self) -> None:
        self._count()
        items = tuple(self._pop_to_mark())
        self._stack.append(items)

    def append(self) -> None:
        self._extend([self._stack.pop()])

    def append_from_mark(self) -> None:
        self._extend(self._pop_to_mark())

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def set_items_from_mark(self) -> None:
        self._update(self._pop_to_mark())

    def name(self) -> None:
        self._count()
        module, name = self._line(), self._line()
        full = f"{module}.{name}"
        is_known = full in _BUILDERS or full in _STORAGES or full in _DTYPES
        self._stack.append(_Global(full) if is_known else self._leave_to_torch(full))

    def storage(self) -> None:
        """Replace a persistent id, ("storage", class, key, location, number of elements), by the storage."""
        self._count()
        match self._stack.pop():
            case ("storage", _Global(name), str(key), str(), int(size)) if name in _STORAGES and 0 <= size < _LARGEST:
                self._stack.append(Storage(key, _STORAGES[name], size))
            case ("storage", kind, *_) if kind is _FOREIGN:
                self._stack.append(_FOREIGN)
            case _:
                raise ValueError("its pickle refers to something that is no storage")

    def call(self) -> None:
        """Replace a name and its arguments by what the builder of that name makes of them."""
        self._count()
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(arguments, tuple) or len(arguments) > _LONGEST:
            raise ValueError("its pickle calls a function with what are no arguments")
        if function is _FOREIGN or any(argument is _FOREIGN for argument in arguments):
            self._stack.append(_FOREIGN)
            return
        builder = _BUILDERS.get(function.name) if isinstance(function, _Global) else None
        if builder is None:
            raise ValueError("its pickle calls what is no function")
        made = builder(arguments)
        self._stack.append(self._leave_to_torch(f"a tensor of {function.name}") if made is _FOREIGN else made)

    def new_object(self) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if not isinstance(kind, _Global) or not isinstance(arguments, tuple):
            raise ValueError("its pickle makes an object of what is no class")
        self._stack.append(self._leave_to_torch(f"an object of {kind.name}"))

    def set_state(self) -> None:
        """Drop the attributes of an OrderedDict, such as the versions of a model's modules."""
        self._stack.pop()
        if not isinstance(self._stack[-1], dict):
            self._stack[-1] = self._leave_to_torch("an object with attributes")

    def _take(self, count: int) -> bytes:
        piece = self._content[self._at : self._at + count]
        if len(piece) < count:
            raise ValueError("its pickle is truncated")
        self._at += count
        return piece

    def _number(self, form: str, size: int) -> Any:
        (number,) = struct.unpack(form, self._take(size))
        return number

    def _line(self) -> str:
        end = self._content.find(b"\n", self._at)
        line = self._take(end - self._at) if end >= 0 else b""
        if not line:
            raise ValueError("its pickle is truncated or damaged")
        self._at += 1
        return line.decode()

    def _count(self) -> None:
        self._objects_left -= 1
        if self._objects_left < 0:
            raise ValueError(f"its pickle makes more than {_MOST_OBJECTS} objects; save fewer tensors in one file")

    def _remember(self, number: int) -> None:
        self._count()
        self._memo[number] = self._stack[-1]

    def _tuple_of(self, count: int) -> None:
        self._count()
        items = tuple(self._stack[-count:])
        if len(items) < count:
            raise ValueError("its pickle is truncated or damaged")
        self._stack[-count:] = [items]

    def _pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._outer_stacks.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif target is not _FOREIGN:
            raise ValueError("its pickle appends to what is no list")

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if len(items) % 2 or not (isinstance(target, dict) or target is _FOREIGN):
            raise ValueError("its pickle sets items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not self._is_plain_key(key):
                self._leave_to_torch("a key that is no text or number")
            elif isinstance(target, dict):
                target[key] = value

    def _is_plain_key(self, key: Any) -> bool:
        """Tell whether to keep a key; others are torch's. Raises ValueError when hashing it could take any time."""
        if isinstance(key, tuple):
            if len(key) > _LONGEST or any(isinstance(part, (tuple, list, dict)) for part in key):
                raise ValueError("its pickle has a key of a dict that is nested or too long")
            for part in key:
                self._is_plain_key(part)
            return False
        if isinstance(key, int) and abs(key) >= _LARGEST_KEY:
            raise ValueError("its pickle has a key of a dict that is too large a number")
        return key is None or isinstance(key, (str, int, float))

    def _leave_to_torch(self, what: str) -> _Global:
        self.needs_torch = self.needs_torch or printable(what)[:200]
        return _FOREIGN


_OPCODES: Mapping[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.proto,
    b"(": _Machine.mark,
    b"q": _Machine.put,
    b"r": _Machine.long_put,
    b"h": _Machine.get,
    b"j": _Machine.long_get,
    b"N": _Machine.none,
    b"\x88": _Machine.true,
    b"\x89": _Machine.false,
    b"K": _Machine.one_byte,
    b"M": _Machine.two_bytes,
    b"J": _Machine.four_bytes,
    b"\x8a": _Machine.long,
    b"G": _Machine.real,
    b"X": _Machine.text,
    b"U": _Machine.old_text,
    b"]": _Machine.empty_list,
    b"}": _Machine.empty_dict,
    b")": _Machine.empty_tuple,
    b"\x85": _Machine.one_tuple,
    b"\x86": _Machine.two_tuple,
    b"\x87": _Machine.three_tuple,
    b"t": _Machine.tuple_from_mark,
    b"a": _Machine.append,
    b"e": _Machine.append_from_mark,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items_from_mark,
    b"c": _Machine.name,
    b"Q": _Machine.storage,
    b"R": _Machine.call,
    b"\x81": _Machine.new_object,
    b"b": _Machine.set_state,
}
"""All but STOP."""


def _tensor(arguments: tuple[Any, ...]) -> Any:
    """Return the tensor of `_rebuild_tensor_v2`: storage, offset, size, strides, requires_grad, hooks, metadata.

    Metadata says that the elements are to be conjugated or negated.
    """
    match arguments:
        case (Storage() as storage, offset, tuple(shape), tuple(strides)):
            return _view(storage, storage.dtype, offset, shape, strides)
        case (Storage() as storage, offset, tuple(shape), tuple(strides), _, _, *rest) if len(rest) < 2:
            return _FOREIGN if any(rest) else _view(storage, storage.dtype, offset, shape, strides)
    raise ValueError("its pickle makes a tensor of what torch.save does not write")


def _typed_tensor(arguments: tuple[Any, ...]) -> Any:
    """Return the tensor of `_rebuild_tensor_v3`: as the one of v2, with a dtype before the metadata."""
    match arguments:
        case (Storage() as storage, offset, tuple(shape), tuple(strides), _, _, _Global(name), *rest) if (
            name in _DTYPES and len(rest) < 2
        ):
            return _FOREIGN if any(rest) else _view(storage, _DTYPES[name], offset, shape, strides)
    raise ValueError("its pickle makes a tensor of what torch.save does not write")


def _empty_tensor(arguments: tuple[Any, ...]) -> Any:
    """Return the tensor of `_rebuild_meta_tensor_no_storage`: dtype, size, strides, requires_grad."""
    match arguments:
        case (_Global(name), tuple(shape), tuple(strides), _) if name in _DTYPES and _are_sizes(shape):
            return StoredTensor(None, _DTYPES[name], 0, shape, strides)
    raise ValueError("its pickle makes a tensor of what torch.save does not write")


def _npu_tensor(arguments: tuple[Any, ...]) -> Any:
    """Return the tensor of torch_npu's `_rebuild_npu_tensor`: the last argument is a bool for dense layouts only."""
    return _tensor(arguments[:6]) if len(arguments) == 7 and isinstance(arguments[6], bool) else _FOREIGN


def _parameter(arguments: tuple[Any, ...]) -> Any:
    """Return the tensor of `_rebuild_parameter`: data, requires_grad, hooks, and attributes that are dropped."""
    if len(arguments) not in (3, 4) or not isinstance(arguments[0], StoredTensor):
        raise ValueError("its pickle makes a parameter of what is no tensor")
    return arguments[0]


def _ordered_dict(arguments: tuple[Any, ...]) -> Any:
    return _FOREIGN if arguments else {}


def _size(arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 1 or not isinstance(arguments[0], tuple):
        raise ValueError("its pickle makes a size of what is no tuple")
    return arguments[0]


def _other(arguments: tuple[Any, ...]) -> Any:
    return _OTHER


_BUILDERS: Mapping[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_meta_tensor_no_storage": _empty_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch_npu.utils.storage._rebuild_npu_tensor": _npu_tensor,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    **dict.fromkeys(("torch.device", "_codecs.encode"), _other),
    **{
        f"{module}.{name}": _other for module in ("builtins", "__builtin__") for name in ("bytearray", "complex", "set")
    },
}
"""Functions by the names of torch's and Python's that they stand for."""


def _are_sizes(numbers: tuple[Any, ...]) -> bool:
    return len(numbers) <= _LONGEST and all(type(number) is int and 0 <= number < _LARGEST for number in numbers)


def _view(storage: Storage, dtype: str, offset: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> StoredTensor:
    """Return a view of a storage. Raises ValueError when it does not lie within the storage."""
    if not (_are_sizes((offset,)) and _are_sizes(shape) and _are_sizes(strides) and len(shape) == len(strides)):
        raise ValueError("its pickle states an impossible shape")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    elements = storage.size * DTYPES[storage.dtype].itemsize // DTYPES[dtype].itemsize
    if 0 not in shape and last >= elements:
        raise ValueError(f"its pickle states a tensor of more than the {elements} elements of its storage")
    return StoredTensor(storage, dtype, offset, shape, strides)
