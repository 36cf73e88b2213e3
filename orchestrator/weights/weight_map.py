"""From the hashes that ranks recorded to which of golden's rows each parameter holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aclcmp.labeling.shard.weight_table import HashedParameter, WeightTable
from aclcmp.orchestrator.weights.expected import Expectations, Holding, signature_of
from aclcmp.orchestrator.weights.golden_rows import GoldenRows

RankTable = tuple[int, WeightTable]
"""A rank, and what it recorded of a model."""


@dataclass(frozen=True, slots=True)
class WeightMap:
    """What every parameter of the actual side holds of golden's, and what it should hold."""

    golden: GoldenRows
    holdings: Sequence[Holding]
    expected: Expectations
    unread: Sequence[tuple[int, HashedParameter]]
    """Parameters without hashes, each with its rank."""
    ranks: tuple[int, ...]
    """Ranks of the actual side that recorded weights."""


def map_weights(golden: Sequence[RankTable], actual: Sequence[RankTable]) -> WeightMap | None:
    """Find golden's rows in the actual side's parameters; None where a side recorded no weights."""
    if not golden or not actual:
        return None
    parameters = _golden_parameters(golden)
    rows = GoldenRows(parameters)
    holdings: list[Holding] = []
    unread: list[tuple[int, HashedParameter]] = []
    models: dict[int, int] = defaultdict(int)
    for rank, table in actual:
        model, models[rank] = models[rank], models[rank] + 1
        for each in table.parameters:
            if not each.forms:
                unread.append((rank, each))
                continue
            segments = tuple(rows.segments(each, rows.find(each)))
            holdings.append(Holding(rank, model, each, segments, signature_of(each.name, segments, parameters)))
    packed = {name: parts for _, table in actual for name, parts in table.packed.items()}
    ranks = tuple(sorted({rank for rank, _ in actual}))
    return WeightMap(rows, holdings, Expectations(holdings, rows, packed), unread, ranks)


def _golden_parameters(tables: Sequence[RankTable]) -> list[HashedParameter]:
    """Return golden's parameters, each once; those of which ranks hold different rows are told by their rank."""
    contents: dict[str, dict[bytes, tuple[int, HashedParameter]]] = defaultdict(dict)
    for rank, table in tables:
        for each in table.parameters:
            if each.forms:
                key = b"".join(rows.tobytes() for form, rows in each.forms.items() if form.parts == 1)
                contents[each.name].setdefault(key or repr(each.shape).encode(), (rank, each))
    return [
        each if len(found) == 1 else replace(each, name=f"{each.name} (golden rank {rank})")
        for found in contents.values()
        for rank, each in found.values()
    ]
