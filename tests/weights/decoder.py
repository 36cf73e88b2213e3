"""A made-up decoder: golden's weights, what the ranks of an engine hold of them, and both as recorded."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.weight_table import HashedParameter, RowForm, WeightTable, row_length
from aclcmp.labeling.weights import hash_block
from aclcmp.orchestrator.core.weights import WeightReport
from aclcmp.orchestrator.weights.check_weights import check_weights
from aclcmp.orchestrator.weights.weight_map import RankTable, map_weights

Weights = dict[str, npt.NDArray[np.float32]]
HIDDEN, HEADS, SIZE, INNER, VOCABULARY = 12, 12, 1, 24, 36
PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def golden_weights(rng: np.random.Generator, layers: int, *, norms: str = "random", tied: bool = False) -> Weights:
    """Return weights as transformers names them; `norms` are "random", "ones" or "few" different values."""

    def matrix(rows: int, columns: int) -> npt.NDArray[np.float32]:
        return rng.standard_normal((rows, columns)).astype(np.float32)

    def vector() -> npt.NDArray[np.float32]:
        if norms == "ones":
            return np.ones(HIDDEN, np.float32)
        return rng.integers(1, 4, HIDDEN).astype(np.float32) if norms == "few" else matrix(1, HIDDEN)[0]

    weights = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{prefix}.self_attn.{name}.weight"] = matrix(HEADS * SIZE, HIDDEN)
        for name in ("q_proj", "k_proj", "v_proj"):
            weights[f"{prefix}.self_attn.{name}.bias"] = np.zeros(HEADS * SIZE, np.float32)
        for name in ("gate_proj", "up_proj"):
            weights[f"{prefix}.mlp.{name}.weight"] = matrix(INNER, HIDDEN)
        weights[f"{prefix}.mlp.down_proj.weight"] = matrix(HIDDEN, INNER)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{name}.weight"] = vector()
    weights["model.norm.weight"] = vector()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] if tied else matrix(VOCABULARY, HIDDEN)
    return weights


def engine_weights(golden: Weights, rank: int, ranks: int, padding: int = 0) -> Weights:
    """Return what an engine holds on a rank: fused, sliced, with rows of padding behind the vocabulary."""
    held: Weights = {}

    def part(name: str, axis: int = 0) -> npt.NDArray[np.float32]:
        return np.split(golden[name], ranks, axis)[rank]

    for name, weight in golden.items():
        *_, module, _ = name.split(".")
        if module in ("k_proj", "v_proj", "up_proj"):
            continue
        fused = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj"}.get(module)
        if fused:
            held[name.replace(module, fused)] = np.concatenate(
                [part(name.replace(module, each)) for each in PACKED[fused]]
            )
        elif module in ("o_proj", "down_proj"):
            held[name] = part(name, 1)
        elif module in ("embed_tokens", "lm_head"):
            zeros = np.zeros((padding if rank == ranks - 1 else 0, HIDDEN), np.float32)
            held[name] = np.concatenate([part(name), zeros])
        else:
            held[name] = weight
    return {name: weight.copy() for name, weight in held.items()}


def other_names(held: Weights, names: Mapping[str, str]) -> Weights:
    """Return weights under other names."""
    renamed = {}
    for name, weight in held.items():
        for before, after in names.items():
            name = name.replace(before, after)
        renamed[name] = weight
    return renamed


def table_of(
    weights: Mapping[str, npt.NDArray[np.float32]],
    side: str,
    parts: Sequence[int] = (1,),
    packed: Mapping[str, tuple[str, ...]] | None = None,
) -> WeightTable:
    """Return the table that a rank records; golden's rows are cut into so many parts too."""
    parameters = []
    for name, weight in weights.items():
        length = row_length(weight.shape)
        forms = {}
        for number in parts if side == "pta" and length > 1 else (1,):
            if length % number == 0:
                rows = np.ascontiguousarray(weight).reshape(-1, length // number)
                for part, hashes in enumerate(hash_block(rows).reshape(-1, number).T):
                    forms[RowForm("", part, number)] = np.ascontiguousarray(hashes)
        parameters.append(HashedParameter(name, "float32", weight.shape, "Linear", "", "", forms))
    return WeightTable(side, tuple(parameters), packed or {})


def tables_of(
    golden: Weights, held: Sequence[Weights], packed: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[list[RankTable], list[RankTable], int]:
    """Return the arguments of `report_on`."""
    ranks = len(held)
    actual = [(rank, table_of(weights, "acl", packed=packed)) for rank, weights in enumerate(held)]
    return [(0, table_of(golden, "pta", sorted({1, ranks})))], actual, ranks


def report_on(golden: Sequence[RankTable], actual: Sequence[RankTable], ranks: int) -> WeightReport:
    """Return what is wrong about what `ranks` ranks hold."""
    found = map_weights(golden, actual)
    assert found is not None
    return check_weights(found, ranks)
