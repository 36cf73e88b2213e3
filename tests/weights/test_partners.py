"""Names and layouts that weights tell: partners in networks of other names, and none where weights do not tell them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from aclcmp.labeling.layout import Layout, Shard
from aclcmp.orchestrator.core.weights import Partners
from aclcmp.orchestrator.weights.partners import INPUT, find_partners
from aclcmp.orchestrator.weights.weight_map import map_weights
from tests.weights.decoder import Weights, engine_weights, golden_weights, other_names, tables_of

OTHER = {
    "model.layers": "h",
    "self_attn.qkv_proj": "attn.wqkv",
    "self_attn.o_proj": "attn.wo",
    "mlp.gate_up_proj": "mlp.w13",
    "mlp.down_proj": "mlp.w2",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "model.embed_tokens": "wte",
    "model.norm": "ln_f",
}


def partners(
    layers: int = 3,
    ranks: int = 2,
    change: Callable[[list[Weights]], None] = lambda _: None,
    names: Mapping[str, str] = OTHER,
    norms: str = "random",
) -> dict[str, Partners]:
    """Return the partners of a fused network's outputs, by the name of the first actual label."""
    golden = golden_weights(np.random.default_rng(0), layers, norms=norms)
    held = [engine_weights(golden, rank, ranks) for rank in range(ranks)]
    change(held)
    goldens, actuals, _ = tables_of(golden, [other_names(each, names) for each in held])
    found = map_weights(goldens, actuals)
    assert found is not None
    return {each.actual_ids[0]: each for each in find_partners(found) if not each.actual_ids[0].endswith(INPUT)}


def told(found: Mapping[str, Partners], name: str) -> tuple[tuple[str, ...], str, int, bool]:
    """Return golden's ids of a label, its layout, its columns on a rank, and whether it may be a summand."""
    each = found[name]
    (tensor,) = each.actual
    return each.golden, str(tensor.layout or ""), tensor.size, tensor.summand


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_names_and_layouts(ranks: int) -> None:
    found = partners(ranks=ranks)
    assert len(found) == 3 * 6 + 3
    attention, mlp = "model.layers.2.self_attn", "model.layers.2.mlp"
    cut = ranks > 1
    qkv = (f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj")
    assert told(found, "h.2.attn.wqkv") == (qkv, "Shard(dim=-1, parts=(12, 12, 12))" * cut, 36 // ranks * cut, False)
    gate_up = (f"{mlp}.gate_proj", f"{mlp}.up_proj")
    assert told(found, "h.2.mlp.w13") == (gate_up, "Shard(dim=-1, parts=(24, 24))" * cut, 48 // ranks * cut, False)
    assert told(found, "h.2.attn.wo") == ((f"{attention}.o_proj",), "", 0, cut)
    assert told(found, "h.2.ln_1") == (("model.layers.2.input_layernorm",), "", 0, False)
    assert told(found, "lm_head") == (("lm_head",), "Shard(dim=-1)" * cut, 36 // ranks * cut, False)


def test_heads_that_ranks_share() -> None:
    """Of two ranks each holds all keys and values: grouped queries of one head."""

    def share(held: list[Weights]) -> None:
        for layer in range(3):
            name = f"model.layers.{layer}.self_attn.qkv_proj.weight"
            parts = [np.split(each[name], 3) for each in held]
            k, v = (np.concatenate([each[n] for each in parts]) for n in (1, 2))
            for each, (q, _, _) in zip(held, parts, strict=True):
                each[name] = np.concatenate([q, k, v])

    (tensor,) = partners(change=share)["h.0.attn.wqkv"].actual
    assert tensor.layout == Layout((Shard(-1, parts=(12, (12, 2), (12, 2))),)) and tensor.size == 30


def test_whole_rows_that_golden_was_not_hashed_in() -> None:
    """An engine's golden side has row-parallel weights in the parts that ranks hold, and not whole."""
    golden = golden_weights(np.random.default_rng(0), 2)
    held = [other_names(engine_weights(golden, rank, 2), OTHER) for rank in range(2)]
    ((rank, table),), actuals, _ = tables_of(golden, held)
    cut = tuple(
        replace(each, forms={form: rows for form, rows in each.forms.items() if form.parts == 2})
        if "o_proj" in each.name
        else each
        for each in table.parameters
    )
    found = map_weights([(rank, replace(table, parameters=cut))], actuals)
    assert found is not None
    named = {each.actual_ids[0]: each for each in find_partners(found)}
    assert told(named, "h.1.attn.wo") == (("model.layers.1.self_attn.o_proj",), "", 0, True)


def test_a_wrong_weight_names_no_partner() -> None:
    """One layer's projection is that of another: the other layers tell whose it should be."""

    def take(held: list[Weights]) -> None:
        for each in held:
            each["model.layers.0.self_attn.o_proj.weight"] = each["model.layers.2.self_attn.o_proj.weight"].copy()

    assert {name: each.golden for name, each in partners(change=take).items()} == {
        name: each.golden for name, each in partners().items()
    }


def test_two_that_claim_one_partner_have_none() -> None:
    """With one layer nobody tells which of two is wrong."""

    def take(held: list[Weights]) -> None:
        for each in held:
            each["lm_head.weight"] = each["model.embed_tokens.weight"].copy()

    found = partners(layers=1, change=take, names=OTHER | {"lm_head": "head"})
    assert "head" not in found and "wte" not in found and "h.0.attn.wo" in found


def test_equal_norms_name_no_partner() -> None:
    found = partners(norms="ones")
    assert not any("ln" in name for name in found) and "h.1.attn.wqkv" in found


def test_rows_in_another_order_name_no_partner() -> None:
    """As for rotary embeddings of another kind: the columns of the output do not correspond."""

    def turn(held: list[Weights]) -> None:
        for each in held:
            for layer in range(3):
                name = f"model.layers.{layer}.self_attn.o_proj.weight"
                each[name] = each[name].reshape(6, 2, -1).swapaxes(0, 1).reshape(each[name].shape)

    found = partners(change=turn)
    assert "h.0.attn.wo" not in found and "h.0.attn.wqkv" in found


def test_slices_in_another_order_of_ranks_have_no_layout() -> None:
    (tensor,) = partners(change=list.reverse)["h.1.mlp.w13"].actual
    assert tensor.layout is None


def test_modules_of_a_sequence() -> None:
    """Numbers that are no layers' tell modules apart."""
    found = partners(names=OTHER | {"mlp.gate_up_proj": "mlp.0", "mlp.down_proj": "mlp.2"})
    assert found["h.1.mlp.2"].golden == ("model.layers.1.mlp.down_proj",)
    assert found["h.1.mlp.0"].golden == ("model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj")


def test_a_fused_golden_weight() -> None:
    """Golden holds queries, keys and values in one weight, the ranks hold them apart."""
    weights = golden_weights(np.random.default_rng(0), 3)
    parts = [[f"model.layers.{layer}.self_attn.{each}_proj.weight" for each in "qkv"] for layer in range(3)]
    fused = {
        f"h.{layer}.c_attn.weight": np.concatenate([weights[name] for name in names])
        for layer, names in enumerate(parts)
    }
    held = [{name: np.split(weights[name], 2)[rank] for names in parts for name in names} for rank in range(2)]
    goldens, actuals, _ = tables_of(fused, held)
    found = map_weights(goldens, actuals)
    assert found is not None
    first = find_partners(found)[0]
    assert first.golden == ("h.0.c_attn",)
    assert first.actual_ids == tuple(f"model.layers.0.self_attn.{each}_proj" for each in "qkv")
    assert [(str(each.layout), each.size) for each in first.actual] == [("Shard(dim=-1)", 6)] * 3
