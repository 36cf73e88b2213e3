"""How a label was computed: a known formula, the labels that are its inputs, and the module's parameters.

What is not recorded as an input is taken for one only where golden's values prove it: the formula gives golden's
output of them, on several tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor
from aclcmp.orchestrator.case import formulas
from aclcmp.orchestrator.case.checkpoint import Heads, read_rows
from aclcmp.orchestrator.case.label_rows import LabelRows, RowName, StoredTensor
from aclcmp.orchestrator.case.script import relative_l2

Formula = Callable[..., Any]
Columns = npt.NDArray[np.int64]
_NORMS: tuple[Formula, ...] = (formulas.rms_norm, formulas.rms_norm_around_one, formulas.layer_norm)
_OF_ONE: tuple[Formula, ...] = (formulas.silu, formulas.gelu, formulas.tanh, formulas.relu)
_OF_TWO: tuple[Formula, ...] = (formulas.silu_and_multiply, formulas.gelu_and_multiply)
_PROOF_ROWS = 4
_MOST_TERMS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Computation:
    """How the outputs of a module come about."""

    formula: Formula | None
    """None where it is not known."""
    inputs: tuple[LabelRows, ...]
    columns: tuple[Columns | None, ...] = ()
    """The features that are needed of each input; None: all."""
    parameters: Mapping[str, StoredTensor] = field(default_factory=dict)
    recorded: bool = True
    """Whether the inputs were recorded as such; else golden's values prove that they are."""
    names: Sequence[RowName] = ()
    """The rows of the inputs, where an output depends on more of them than its own."""


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """A formula with its parameters, and what its inputs must be."""

    formula: Formula
    parameters: Mapping[str, StoredTensor]
    width: int
    """Features of each input."""
    terms: int = 1
    """Most inputs."""
    ordered: bool = False
    """Whether it takes just so many, in an order."""
    elementwise: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """The outputs that are to be explained: those of some rows that a rank holds."""

    label: LabelRows
    rows: Sequence[int]
    columns: Columns
    parameters: Mapping[str, DumpedTensor]
    eps: Sequence[float]
    heads: Heads | None = None


def find_computation(target: Target, recorded: Sequence[LabelRows], before: Sequence[LabelRows]) -> Computation:
    """Find how a label was computed: from inputs that were recorded, or from labels before it, the nearest first."""
    if (known := _embedding(target) or _attention(target, before)) is not None:
        return known
    search, forms = _Search(target), list(_forms(target))
    found = search.best(forms, recorded) if recorded else None
    if found is not None and found[0] <= search.proof:
        return found[1]
    by_values = search.best(forms, [*recorded, *before])
    if by_values is not None and by_values[0] <= search.proof:
        return replace(by_values[1], recorded=False)
    if found is not None and found[1].parameters:
        return found[1]
    return Computation(None, tuple(recorded))


def _embedding(target: Target) -> Computation | None:
    weight, tokens = target.parameters.get("weight"), target.label.tokens(target.rows)
    if weight is None or not tokens or len(weight.shape) != 2 or weight.shape[1] != target.label.features:
        return None
    golden = target.label.read("golden", target.rows, target.columns)
    if golden is None or max(tokens) >= weight.shape[0]:
        return None
    rows = read_rows(weight, (tokens,))
    rows = StoredTensor(rows.bits[:, target.columns], rows.dtype)
    if not relative_l2(rows.values, golden.values) <= _proof(golden.dtype):
        return None
    return Computation(formulas.embedding, (), parameters={"weight": rows})


def _attention(target: Target, before: Sequence[LabelRows]) -> Computation | None:
    """Return causal attention over queries, keys and values beside the label, if golden's values prove it."""
    heads, label = target.heads, target.label
    names = label.names_up_to(target.rows)
    if heads is None or names is None or label.features != heads.queries * heads.size:
        return None
    beside = label.plan.key.label.removesuffix(".input").rpartition(".")[0]
    of_kind = [
        next(
            (each for each in before if each.plan.key.label in (f"{beside}.{kind}_norm", f"{beside}.{kind}_proj")), None
        )
        for kind in "qkv"
    ]
    own = np.unique(target.columns // heads.size)
    shared = np.unique(own * heads.keys // heads.queries)
    if not np.array_equal(target.columns, _columns_of(own, heads)) or len(own) % len(shared):
        return None
    inputs = tuple(each for each in of_kind if each is not None)
    columns = (target.columns, *[_columns_of(shared, heads)] * 2)
    if [each.features for each in inputs] != [each * heads.size for each in (heads.queries, heads.keys, heads.keys)]:
        return None
    requests = {request: number for number, (request, _) in enumerate(names)}
    numbers = {
        "request": [requests[request] for request, _ in names],
        "position": [position for _, position in names],
        "frequency": heads.base ** (-np.arange(0, heads.size, 2) / heads.size),
        "scale": heads.scale,
    }
    parameters = {name: StoredTensor(np.array(each, np.float64), "float64") for name, each in numbers.items()}
    found = Computation(formulas.attention, inputs, columns, parameters, recorded=False, names=names)
    golden = label.read("golden", target.rows, target.columns)
    values = [each.read_by_name("golden", names, of) for each, of in zip(inputs, columns, strict=True)]
    if golden is None or None in values:
        return None
    exact = {name: each.values for name, each in parameters.items()}
    places = [names.index(name) for name in label.names(target.rows)]
    with np.errstate(all="ignore"):
        output = formulas.attention(*(each.values for each in values if each is not None), **exact)[places]
    return found if relative_l2(output, golden.values) <= _proof(golden.dtype) else None


def _columns_of(chosen: Columns, heads: Heads) -> Columns:
    return (chosen[:, None] * heads.size + np.arange(heads.size)).reshape(-1)


def _forms(target: Target) -> Iterator[_Form]:
    """Yield the formulas that the shapes of a module's parameters allow."""
    features, columns = target.label.features, target.columns
    weight, bias = target.parameters.get("weight"), target.parameters.get("bias")
    with_bias = {} if bias is None or bias.shape != (features,) else {"bias": read_rows(bias, columns)}
    if weight is None:
        yield _Form(formulas.add, {}, features, _MOST_TERMS, elementwise=True)
        yield from (_Form(each, {}, features, elementwise=True) for each in _OF_ONE)
        yield from (_Form(each, {}, features, 2, ordered=True, elementwise=True) for each in _OF_TWO)
    elif len(weight.shape) == 2:
        if weight.shape[0] == features:
            part = slice(None) if len(columns) == features else columns
            own = {"weight": read_rows(weight, part), **with_bias}
            yield _Form(formulas.linear, own, weight.shape[1])
            yield _Form(formulas.linear_of_product, own, weight.shape[1], 2, ordered=True)
        if weight.shape[1] == features:
            whole = read_rows(weight)
            part_of = StoredTensor(np.ascontiguousarray(whole.bits[:, columns]), whole.dtype)
            yield _Form(formulas.transposed_linear, {"weight": part_of, **with_bias}, weight.shape[0])
    elif weight.shape == (features,) and len(columns) == features:
        own = {"weight": read_rows(weight), **with_bias}
        for norm in _NORMS:
            if not with_bias or norm is formulas.layer_norm:
                for eps in target.eps:
                    number = StoredTensor(np.array(eps), "float64")
                    yield _Form(norm, {**own, "eps": number}, features, 2)


class _Search:
    """Golden's values of a few rows, and how near formulas come to them."""

    def __init__(self, target: Target) -> None:
        self._target = target
        label = target.label
        others = [int(row) for row in np.linspace(0, label.count - 1, min(_PROOF_ROWS, label.count))]
        rows = list(dict.fromkeys([*target.rows, *others]))
        self._names = label.names(rows)
        golden = label.read("golden", rows, target.columns)
        self._golden = np.empty((0, 0)) if golden is None else golden.values
        self.proof = 0.0 if golden is None else _proof(golden.dtype)
        self._values: dict[int, npt.NDArray[np.float64] | None] = {}

    def best(self, forms: Sequence[_Form], labels: Sequence[LabelRows]) -> tuple[float, Computation] | None:
        """Return the computation from some of the labels that is nearest to golden's output, and its error."""
        found: tuple[float, Computation] | None = None
        for form in forms:
            exact = {name: each.values for name, each in form.parameters.items()}
            for inputs in self._choices(form, labels):
                error = self._error(form, inputs, exact)
                if found is None or error < found[0]:
                    columns = (self._target.columns if form.elementwise else None,) * len(inputs)
                    found = error, Computation(form.formula, inputs, columns, form.parameters)
            if found is not None and found[0] <= self.proof:
                break
        return found

    def _choices(self, form: _Form, labels: Sequence[LabelRows]) -> Iterator[tuple[LabelRows, ...]]:
        fitting = [each for each in labels if each.features == form.width and self._read(each) is not None]
        if form.ordered:
            yield from permutations(fitting, form.terms)
            return
        for count in range(1, form.terms + 1):
            yield from combinations(fitting, count)

    def _error(self, form: _Form, inputs: Sequence[LabelRows], exact: Mapping[str, Any]) -> float:
        values = [self._read(each) for each in inputs]
        if form.elementwise:
            values = [None if each is None else each[:, self._target.columns] for each in values]
        with np.errstate(all="ignore"):
            found = form.formula(*values, **exact)
            rows = [relative_l2(one, other) for one, other in zip(found, self._golden, strict=True)]
        return max(rows) if np.isfinite(rows).all() else np.inf

    def _read(self, label: LabelRows) -> npt.NDArray[np.float64] | None:
        if id(label) not in self._values:
            rows = label.find(self._names)
            read = None if rows is None or not self._golden.size else label.read("golden", rows)
            self._values[id(label)] = None if read is None else read.values
        return self._values[id(label)]


def _proof(dtype: str) -> float:
    """Return the error up to which golden's output is what a formula gives of the right inputs."""
    return max(1e-5, 2 * (DTYPES[dtype].eps or 0.0))
