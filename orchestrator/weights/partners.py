"""Partner modules and layouts by the rows of weights: row i of a linear layer's weight makes column i of its output.

What most layers of a rank hold counts, so that a weight that was loaded wrongly names no partner. Of equal weights
(norms of ones, layers without values of their own) none is a partner's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aclcmp.labeling.layout import Layout, Shard
from aclcmp.labeling.shard.weight_table import TRANSPOSED, HashedParameter
from aclcmp.orchestrator.core.weights import Partners, WeightedTensor
from aclcmp.orchestrator.weights.expected import Family, Holding, Run
from aclcmp.orchestrator.weights.names import module_of, of_any_layer, shifted
from aclcmp.orchestrator.weights.weight_map import WeightMap

_WEIGHT = ".weight"
INPUT = ".input"
"""What the id of a module's input has behind that of its output."""

_Naming = tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
"""Templates of golden's parameters whose rows a parameter holds, in their order, and their numbers as seen from its."""


@dataclass(frozen=True, slots=True)
class _Share:
    """The stretch of one golden weight's rows that a module holds on each rank."""

    golden: HashedParameter
    rows: int
    """How many golden has."""
    runs: Mapping[int, Run]
    """By rank; empty where ranks do not tell."""


@dataclass(frozen=True, slots=True)
class _Module:
    """A module of the actual side, and what its weight is made of."""

    label: str
    parameter: HashedParameter
    shares: tuple[_Share, ...]


def find_partners(found: WeightMap) -> list[Partners]:
    """Return the partners that weights name, in the actual side's order.

    Those that two modules claim, and ranks that contradict each other, are left out.
    """
    modules = list(_modules(found))
    claims: dict[str, list[_Module]] = defaultdict(list)
    for module in modules:
        for share in module.shares:
            claims[share.golden.name].append(module)
    partners: list[Partners] = []
    for module in modules:
        claimed = [claims[share.golden.name] for share in module.shares]
        tied = module.parameter.tied or any(share.golden.tied for share in module.shares)
        if not tied and all(len(each) == 1 for each in claimed):
            partners += _partners_of(module)
        elif len(module.shares) == 1 and claimed[0][0] is module:
            partners += _partners_of_several(module.shares[0].golden, claimed[0])
    return partners


def _modules(found: WeightMap) -> Iterator[_Module]:
    """Yield the modules whose weights are known, under one name on all ranks that tell."""
    names = _names(found)
    numbers = {each.name: number for number, each in enumerate(found.golden.parameters)}
    by_name: dict[str, list[Holding]] = defaultdict(list)
    for each in found.holdings:
        if each.parameter.name.endswith(_WEIGHT) and len(each.parameter.shape) in (1, 2):
            by_name[each.parameter.name].append(each)
    for name, holdings in by_name.items():
        told = {
            named for each in holdings if (named := names.get((each.model, each.rank, of_any_layer(name)))) is not None
        }
        if len(told) != 1 or len({each.model for each in holdings}) > 1:
            continue
        parameter, family = holdings[0].parameter, found.expected.family(holdings[0])
        shifts = dict(told.pop())
        goldens = [numbers.get(shifted(template, name, shifts[template])) for template in family if template in shifts]
        if None in goldens or not len(family) == len(shifts) == len(set(goldens)):
            continue
        is_turned = parameter.module in TRANSPOSED  # its rows are columns of its input
        runs = {} if is_turned else _runs(found, holdings, family)
        if not all(template.endswith(_WEIGHT) for template in family) or (len(family) > 1 if is_turned else not runs):
            continue
        shares = (
            _share(found.golden.parameters[number], runs.get(template, {}))
            for number, template in zip(goldens, family, strict=True)
            if number is not None
        )
        yield _Module(_label(parameter), parameter, tuple(shares))


def _share(golden: HashedParameter, runs: Mapping[int, Run]) -> _Share:
    transposed = any(run.transposed for run in runs.values())
    # whole rows are not hashed where only their parts are of the other side's width
    rows = (len(hashes) for form, hashes in golden.forms.items() if form.transposed == transposed)
    return _Share(golden, next(rows, 0), runs)


def _names(found: WeightMap) -> dict[tuple[int, int, str], _Naming]:
    """Return what more than half of the layers of a rank hold, by model, rank, and the pattern of their names."""
    contents = Counter(_content(each) for each in found.golden.parameters)
    votes: dict[tuple[int, int, str], Counter[_Naming]] = defaultdict(Counter)
    for each in found.holdings:
        known = [segment for segment in each.segments if segment.known]
        held = {segment.golden for segment in known}
        if 2 * sum(segment.count for segment in known) < max(len(each.rows), 1) or any(
            contents[_content(found.golden.parameters[number])] > 1 for number in held
        ):
            continue
        shifts = dict.fromkeys((run.template, run.shift) for run in each.signature if run.template)
        votes[each.model, each.rank, of_any_layer(each.parameter.name)][tuple(shifts)] += 1
    names = {}
    for group, of_group in votes.items():
        naming, most = of_group.most_common(1)[0]
        if 2 * most > of_group.total():
            names[group] = naming
    return names


def _runs(found: WeightMap, holdings: Sequence[Holding], family: Family) -> dict[str, dict[int, Run]]:
    """Return by template of golden's weight the stretch that each rank should hold; empty unless all ranks tell one."""
    by_template: dict[str, dict[int, Run]] = defaultdict(dict)
    for each in holdings:
        signature = [run for run in found.expected.signature(each) or () if run.template]
        if tuple(run.template for run in signature) != family:  # none, or rows in another order
            return {}
        for run in signature:
            by_template[run.template][each.rank] = run
    return by_template


def _partners_of(module: _Module) -> Iterator[Partners]:
    """Yield a module's output and the outputs of golden that it is made of; and its input and golden's first."""
    goldens = tuple(_label(share.golden) for share in module.shares)
    layout, size = _input_layout(module)
    yield Partners(goldens, (WeightedTensor(module.label, *_output_layout(module), summand=layout is not None),))
    yield Partners((goldens[0] + INPUT,), (WeightedTensor(module.label + INPUT, layout, size),))


def _partners_of_several(golden: HashedParameter, modules: Sequence[_Module]) -> Iterator[Partners]:
    """Yield the partners of a golden weight that several modules hold: users of a tied one, or parts side by side."""
    if any(len(module.shares) > 1 for module in modules):
        return
    users = (_label(golden), *golden.tied)
    theirs = [label for module in modules for label in (module.label, *module.parameter.tied)]
    if len(users) == len(theirs):
        for one, other in zip(users, theirs, strict=True):
            yield Partners((one,), (WeightedTensor(other),))
        return
    shares = {module.label: module.shares[0] for module in modules}
    spans = {
        label: (min(run.row for run in share.runs.values()), max(run.row + run.count for run in share.runs.values()))
        for label, share in shares.items()
        if share.runs and all(run.parts == 1 for run in share.runs.values())
    }
    ordered = sorted(spans, key=lambda label: spans[label])
    ends = [0, *(spans[label][1] for label in ordered)]
    if len(spans) < len(modules) or [spans[label][0] for label in ordered] != ends[:-1]:
        return
    if ends[-1] != shares[ordered[0]].rows:
        return
    parts = []
    for label in ordered:
        begin, end = spans[label]
        copies = _copies(shares[label].runs, end - begin, begin)
        count = next(iter(shares[label].runs.values())).count
        parts.append(WeightedTensor(label, *(_layout([(end - begin, copies)], len(shares[label].runs), count))))
    yield Partners((_label(golden),), tuple(parts))


def _output_layout(module: _Module) -> tuple[Layout | None, int]:
    """Return how ranks share the columns of a module's output, and how many each has; None where that is not told."""
    if "Embedding" in module.parameter.module or not all(share.runs for share in module.shares):
        return None, 0
    parts = []
    for share in module.shares:
        copies = _copies(share.runs, share.rows, 0)
        if copies == 0:
            return None, 0
        parts.append((share.rows, copies))
    ranks, size = len(module.shares[0].runs), sum(next(iter(share.runs.values())).count for share in module.shares)
    return _layout(parts, ranks, size)


def _layout(parts: Sequence[tuple[int, int]], ranks: int, size: int) -> tuple[Layout | None, int]:
    """Return the layout of parts of whole sizes of which so many ranks hold the same; None where none is cut."""
    if any(copies == 0 for _, copies in parts) or all(copies == ranks for _, copies in parts):
        return None, 0
    if len(parts) == 1 and parts[0][1] == 1:
        return Layout((Shard(-1),)), size
    told = tuple(whole if copies == 1 else (whole, copies) for whole, copies in parts)
    return Layout((Shard(-1, parts=told),)), size


def _copies(runs: Mapping[int, Run], rows: int, begin: int) -> int:
    """Return of how many neighbouring ranks each holds the same slice, if slices follow the order of ranks; else 0."""
    in_order = [runs[rank] for rank in sorted(runs)]
    count = in_order[0].count
    if rows % count or len(in_order) % (rows // count):
        return 0
    copies = len(in_order) // (rows // count)
    fits = (
        run.parts == 1 and run.count == count and run.row == begin + place // copies * count
        for place, run in enumerate(in_order)
    )
    return copies if all(fits) else 0


def _input_layout(module: _Module) -> tuple[Layout | None, int]:
    """Return how ranks share the columns of a module's input, where its weight's columns are cut in their order."""
    share, *others = module.shares
    ranks = sorted(share.runs)
    cut = [(share.runs[rank].part, share.runs[rank].parts) for rank in ranks]
    if others or len(ranks) < 2 or cut != [(place, len(ranks)) for place in range(len(ranks))]:
        return None, 0
    return Layout((Shard(-1),)), module.parameter.shape[-1]


def _label(parameter: HashedParameter) -> str:
    return parameter.label or module_of(parameter.name)


def _content(parameter: HashedParameter) -> bytes:
    return next(iter(parameter.forms.values())).tobytes()
