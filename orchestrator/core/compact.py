"""Frozen dataclasses of many numbers in little memory: the numbers as bytes, in which a whole batch is one table.

A run of 1,024 ranks has a million of each. As objects of their own the 33 numbers of one take 950 bytes, packed 300,
and what is worked out of them (`table`) takes a tenth of the time.
"""

from __future__ import annotations

import gc
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from operator import itemgetter
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

Kind = TypeVar("Kind")
Table = npt.NDArray[np.void]
"""One row for each object; columns are named after their fields, int64 or float64."""

_CODES = {"int": "q", "float": "d"}
_EACH = {code: struct.Struct(f"<{code}") for code in _CODES.values()}


def compact(cls: type[Kind]) -> type[Kind]:
    """Return a frozen dataclass (without slots) anew, its fields of types int and float as one string of bytes.

    It is made, read, replaced, compared and pickled as before. Integers must fit in 64 bits.
    """
    each = fields(cast("Any", cls))
    numbers = [field.name for field in each if field.type in _CODES]
    others = [field.name for field in each if field.type not in _CODES]
    codes = [_CODES[str(field.type)] for field in each if field.name in numbers]
    names = [field.name for field in each]
    defaults = {field.name: field.default for field in each if field.default is not MISSING}
    whole = struct.Struct("<" + "".join(codes))
    pack = whole.pack
    namespace = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__", *others)}
    for place, (name, code) in enumerate(zip(numbers, codes, strict=True)):
        namespace[name] = property(_reader(_EACH[code], 8 * place))
    slots = ("_packed", *others)
    known, chosen, put = set(names), itemgetter(*numbers), object.__setattr__

    def init(self: Any, *values: Any, **named: Any) -> None:
        given = defaults | dict(zip(names, values, strict=False)) | named if values else defaults | named
        if given.keys() != known or len(values) + len(named) > len(names):
            raise TypeError(f"{cls.__name__} takes {', '.join(names)}, each once")
        put(self, "_packed", pack(*chosen(given)))
        for name in others:
            put(self, name, given[name])

    def reduce(self: Any) -> Any:
        return _rebuild, (type(self), *[getattr(self, name) for name in slots])

    namespace |= {"__slots__": slots, "__init__": init, "__reduce__": reduce, "__packed__": whole}
    namespace["__packed_dtype__"] = np.dtype(
        [(name, f"<{'i' if code == 'q' else 'f'}8") for name, code in zip(numbers, codes, strict=True)]
    )
    if "__eq__" in namespace:
        namespace["__eq__"] = lambda self, other: type(other) is type(self) and _state(self) == _state(other)
        namespace["__hash__"] = lambda self: hash(_state(self))
    return cast("type[Kind]", type(cls.__name__, cls.__bases__, namespace))


def table(objects: Iterable[Any], cls: type[Any]) -> Table:
    """Return the numbers of objects of one packed class, row by row."""
    return np.frombuffer(b"".join([each._packed for each in objects]), cls.__packed_dtype__)


def numbers_of(one: Any) -> tuple[Any, ...]:
    """Return the numbers of an object of a packed class, in the order of its fields."""
    return cast("tuple[Any, ...]", one.__packed__.unpack(one._packed))


def number_reader(cls: type[Any], *names: str) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that reads several numbers of an object at once."""
    chosen = itemgetter(*[cls.__packed_dtype__.names.index(name) for name in names])
    unpack = cls.__packed__.unpack
    return lambda one: cast("tuple[Any, ...]", chosen(unpack(one._packed)))


def with_numbers(cls: type[Kind], numbers: Iterable[float], *others: Any) -> Kind:
    """Return an object from its numbers, in the order of its fields; `others` are those that are none."""
    return cast("Kind", _rebuild(cls, cast("Any", cls).__packed__.pack(*numbers), *others))


def empty_table(cls: type[Any], count: int) -> Table:
    """Return a table to be filled, from which `from_table` makes objects."""
    return np.zeros(count, cls.__packed_dtype__)


def from_table(cls: type[Kind], rows: Table, *others: Sequence[Any]) -> list[Kind]:
    """Return one object for each row; `others` are their fields that are no numbers, in their order."""
    whole, size = rows.tobytes(), rows.dtype.itemsize
    each = [whole[at : at + size] for at in range(0, len(whole), size)]
    slots = [getattr(cls, name).__set__ for name in cast("Any", cls).__slots__]
    found = [object.__new__(cls) for _ in each]
    for put, values in zip(slots, (each, *others), strict=True):
        for one, value in zip(found, values, strict=True):
            put(one, value)
    return found


def from_columns(cls: type[Kind], columns: Mapping[str, Sequence[Any]], *others: Sequence[Any]) -> list[Kind]:
    """Return objects from columns named after the numbers, and their other fields as `from_table` does."""
    names = cast("Any", cls).__packed_dtype__.names
    found = empty_table(cls, len(columns[names[0]]))
    for name in names:
        found[name] = columns[name]
    return from_table(cls, found, *others)


def _reader(number: struct.Struct, at: int) -> Callable[[Any], Any]:
    unpack = number.unpack_from

    def read(self: Any) -> Any:
        return unpack(self._packed, at)[0]

    return read


def _rebuild(cls: type[Any], *state: Any) -> Any:
    found = object.__new__(cls)
    for name, value in zip(cls.__slots__, state, strict=True):
        object.__setattr__(found, name, value)
    return found


def _state(one: Any) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in one.__slots__)


@contextmanager
def without_collection() -> Iterator[None]:
    """Spare the search for cycles: a plan has none, and its millions of objects make it half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def slots_of(cls: type[Any]) -> dict[str, Any]:
    """Return what reads and sets each field as it is held, by its name: `__get__` and `__set__`."""
    return {name: vars(each)[name] for each in reversed(cls.__mro__) for name in vars(each).get("__slots__", ())}


def make_lazy(cls: type[Any], name: str) -> None:
    """Let a field also hold a function of the object, which is called whenever the field is read."""
    slot = vars(cls)[name]

    def read(self: Any) -> Any:
        value = slot.__get__(self)
        return value(self) if callable(value) else value

    setattr(cls, name, property(read, slot.__set__))


def make_copier(cls: type[Kind], slots: Mapping[str, Any]) -> Callable[..., Kind]:
    """Return `copy(one, **changes)`, a `dataclasses.replace` that leaves functions what they are."""
    taken = [(slot.__get__, slot.__set__) for slot in slots.values()]
    new = object.__new__

    def copy(one: Kind, **changes: Any) -> Kind:
        made = new(cls)
        for read, write in taken:
            write(made, read(one))
        for name, value in changes.items():
            slots[name].__set__(made, value)
        return made

    return copy


def bulk_construct(
    cls: type[Kind], slots: Mapping[str, Any], count: int, columns: Mapping[str, Iterable[Any]]
) -> list[Kind]:
    """Return so many objects from columns of all their fields; one by one takes three times as long."""
    found = [object.__new__(cls) for _ in range(count)]
    for name, slot in slots.items():
        deque(map(slot.__set__, found, columns[name]), maxlen=0)
    return found
