"""What ranks hold of golden's weights: what is right is never blamed, and what is wrong always found."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.shard.weight_table import HashedParameter
from aclcmp.orchestrator.core.weights import WeightFault, WeightFinding, WeightReport
from aclcmp.orchestrator.weights.check_weights import check_weights, note_on_order
from aclcmp.orchestrator.weights.weight_map import map_weights
from tests.weights.decoder import (
    HIDDEN,
    PACKED,
    Weights,
    engine_weights,
    golden_weights,
    other_names,
    report_on,
    table_of,
    tables_of,
)

QKV = "model.layers.{}.self_attn.qkv_proj.weight"
GATE_UP = "model.layers.{}.mlp.gate_up_proj.weight"
O_PROJ = "model.layers.{}.self_attn.o_proj.weight"


def checked(golden: Weights, held: list[Weights], packed: Mapping[str, tuple[str, ...]] | None = None) -> WeightReport:
    return report_on(*tables_of(golden, held, packed))


def engine(
    layers: int, ranks: int, change: Callable[[list[Weights]], None] = lambda _: None, seed: int = 0
) -> tuple[Weights, list[Weights]]:
    golden = golden_weights(np.random.default_rng(seed), layers)
    held = [engine_weights(golden, rank, ranks) for rank in range(ranks)]
    change(held)
    return golden, held


def only(report: WeightReport) -> WeightFinding:
    (finding,) = report.findings
    return finding


@given(
    seed=st.integers(0, 2**32 - 1),
    layers=st.integers(1, 4),
    ranks=st.sampled_from([1, 2, 3, 4]),
    norms=st.sampled_from(["random", "ones", "few"]),
    tied=st.booleans(),
    padding=st.integers(0, 3),
    packed=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_healthy_models_are_never_blamed(
    seed: int, layers: int, ranks: int, norms: str, tied: bool, padding: int, packed: bool
) -> None:
    golden = golden_weights(np.random.default_rng(seed), layers, norms=norms, tied=tied)
    held = [engine_weights(golden, rank, ranks, padding) for rank in range(ranks)]
    report = checked(golden, held, packed=PACKED if packed else {})
    assert report.findings == () and report.known == report.parameters == len(held[0])


@given(seed=st.integers(0, 2**32 - 1), layers=st.integers(1, 3), ranks=st.sampled_from([1, 2, 3]), data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_wrong_row_is_always_found(seed: int, layers: int, ranks: int, data: st.DataObject) -> None:
    golden = golden_weights(np.random.default_rng(seed), layers)
    held = [engine_weights(golden, rank, ranks) for rank in range(ranks)]
    rank, name = data.draw(st.integers(0, ranks - 1)), data.draw(st.sampled_from(sorted(held[0])))
    row = data.draw(st.integers(0, len(held[rank][name]) - 1))
    held[rank][name][row] += 0.37
    found = checked(golden, held).findings
    assert [(each.parameter, each.ranks) for each in found if each.kind is not WeightFault.UNHELD] == [(name, (rank,))]
    assert "1 unknown row" in found[0].words
    if held[rank][name].ndim > 1 or ranks > 1:
        assert found[0].wrong


@given(seed=st.integers(0, 2**32 - 1), ranks=st.sampled_from([1, 2, 3]), data=st.data())
@settings(max_examples=30, deadline=None)
def test_two_rows_that_changed_places_are_always_found(seed: int, ranks: int, data: st.DataObject) -> None:
    golden = golden_weights(np.random.default_rng(seed), 3)
    held = [engine_weights(golden, rank, ranks) for rank in range(ranks)]
    rank = data.draw(st.integers(0, ranks - 1))
    name = data.draw(st.sampled_from([each for each in sorted(held[0]) if held[0][each].ndim > 1]))
    one, other = data.draw(st.lists(st.integers(0, len(held[rank][name]) - 1), min_size=2, max_size=2, unique=True))
    held[rank][name][[one, other]] = held[rank][name][[other, one]]
    finding = only(checked(golden, held))
    assert (finding.parameter, finding.ranks, finding.wrong) == (name, (rank,), True)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_swapped_parts_on_one_rank(layers: int) -> None:
    def swap(held: list[Weights]) -> None:
        for layer in range(layers):
            weight = held[1][QKV.format(layer)]
            weight[4:] = np.roll(weight[4:], 4, 0)

    finding = only(checked(*engine(layers, 3, swap)))
    assert (finding.kind, finding.parameter, finding.ranks) == (WeightFault.ORDER, QKV.format(0), (1,))
    assert len(finding.others) == layers - 1 and finding.wrong
    assert finding.words.startswith("holds q_proj[4:8], **v_proj[4:8]**, **k_proj[4:8]**; it should hold")


def test_parts_that_are_swapped_everywhere_are_found_by_what_the_class_tells() -> None:
    def swap(held: list[Weights]) -> None:
        for weights in held:
            for layer in range(3):
                weights[QKV.format(layer)][4:] = np.roll(weights[QKV.format(layer)][4:], 4, 0)

    golden, held = engine(3, 3, swap)
    assert checked(golden, held).findings == ()  # nothing tells
    finding = only(checked(golden, held, packed=PACKED))
    assert (finding.kind, finding.ranks, len(finding.others)) == (WeightFault.ORDER, (0, 1, 2), 2)


@pytest.mark.parametrize("rows", ["zero", "unknown"])
def test_half_of_a_fused_weight_never_loaded(rows: str) -> None:
    def drop(held: list[Weights]) -> None:
        weight = held[2][GATE_UP.format(1)]
        weight[8:] = 0 if rows == "zero" else np.random.default_rng(5).standard_normal((8, HIDDEN))

    finding = only(checked(*engine(3, 3, drop)))
    assert (finding.kind, finding.ranks, finding.wrong) == (WeightFault.UNKNOWN, (2,), True)
    assert f"gate_proj[16:24], **8 {rows} rows**" in finding.words and "no rank holds up_proj[16:24]" in finding.words


@pytest.mark.parametrize("rows", ["zero", "unknown"])
def test_half_of_a_weight_that_is_loaded_nowhere_is_left_to_its_labels(rows: str) -> None:
    """It may have been changed on purpose: then its labels are right."""

    def drop(held: list[Weights]) -> None:
        for weights in held:
            for layer in range(3):
                weights[GATE_UP.format(layer)][8:] *= 0 if rows == "zero" else 0.5

    finding = only(checked(*engine(3, 3, drop)))
    assert (finding.kind, finding.ranks, finding.wrong) == (WeightFault.UNKNOWN, (0, 1, 2), False)
    assert "model.layers.1.mlp.up_proj" in finding.labels


def test_weights_of_another_layer() -> None:
    def copy(held: list[Weights]) -> None:
        for weights in held:
            weights[O_PROJ.format(0)] = weights[O_PROJ.format(2)].copy()

    finding = only(checked(*engine(3, 3, copy)))
    assert (finding.kind, finding.ranks, finding.wrong) == (WeightFault.LAYER, (0, 1, 2), True)
    assert "**model.layers.2.self_attn.o_proj[:, 0:4]**" in finding.words


def test_layers_that_a_stage_counts_from_zero() -> None:
    golden = golden_weights(np.random.default_rng(0), 4)
    held: list[Weights] = []
    for rank in range(2):
        stage = {name: weight for name, weight in golden.items() if ".layers." not in name}
        for layer in range(2):
            of_layer = f"model.layers.{2 * rank + layer}."
            names = [name for name in golden if name.startswith(of_layer)]
            stage |= {name.replace(of_layer, f"model.layers.{layer}."): golden[name] for name in names}
        held.append(stage)
    report = checked(golden, held)
    assert report.findings == ()


@pytest.mark.parametrize("name", [QKV, O_PROJ])
def test_the_slice_of_another_rank(name: str) -> None:
    def take(held: list[Weights]) -> None:
        for layer in range(3):
            held[1][name.format(layer)] = held[0][name.format(layer)].copy()

    finding = only(checked(*engine(3, 3, take)))
    assert (finding.kind, finding.ranks, finding.wrong) == (WeightFault.SLICE, (1,), True)
    assert finding.parameter == name.format(0) and len(finding.others) == 2


def test_slices_that_two_ranks_exchanged_are_left_to_their_labels() -> None:
    def exchange(held: list[Weights]) -> None:
        for layer in range(3):
            name = O_PROJ.format(layer)
            held[0][name], held[1][name] = held[1][name], held[0][name]

    findings = checked(*engine(3, 3, exchange)).findings
    assert {each.kind for each in findings} == {WeightFault.SLICE} and not any(each.wrong for each in findings)
    assert {rank for each in findings for rank in each.ranks} == {0, 1}


def test_modules_of_a_sequence_are_not_each_other() -> None:
    """Numbers that are no layers': `mlp.0` and `mlp.2` hold other rows."""
    golden, held = engine(3, 2)
    names = {"mlp.gate_up_proj": "mlp.0", "mlp.down_proj": "mlp.2"}
    assert checked(golden, [other_names(each, names) for each in held]).findings == ()


@pytest.mark.parametrize(("order", "told"), [((0, 1, 2), False), ((1, 0, 2), True)])
def test_another_order_of_ranks_is_told(order: tuple[int, ...], told: bool) -> None:
    """Who exchanged all slices may be meant so: it is no finding, but said."""
    golden, held = engine(2, 3)
    goldens, actuals, _ = tables_of(golden, [held[rank] for rank in order])
    found = map_weights(goldens, actuals)
    assert found is not None and check_weights(found, 3).findings == ()
    words = "ranks hold the slices of golden's weights in another order than that of their numbers: "
    assert list(note_on_order(found)) == [f"{words}rank 0 slice 2, rank 1 slice 1, rank 2 slice 3"] * told


def test_a_weight_that_cannot_be_read_is_not_known() -> None:
    golden, held = engine(2, 1)
    tables = tables_of(golden, held)
    (rank, table) = tables[1][0]
    packed = [
        replace(each, problem="it is empty", forms={}) if "gate_up" in each.name else each for each in table.parameters
    ]
    report = report_on(tables[0], [(rank, replace(table, parameters=tuple(packed)))], 1)
    finding = only(report)
    assert finding.kind is WeightFault.UNCHECKED and not finding.wrong and "it is empty" in finding.words
    assert report.known == report.parameters - 2


def test_scales_in_another_order_are_named() -> None:
    rng = np.random.default_rng(3)
    golden = golden_weights(rng, 3)
    for name in [name for name in golden if name.endswith("_proj.weight")]:
        golden[f"{name}_scale"] = rng.random((len(golden[name]), 1)).astype(np.float32)
    held = engine_weights(golden, 0, 1)
    assert checked(golden, [held], PACKED).findings == ()
    name = "model.layers.1.mlp.down_proj.weight_scale"
    held[name] = held[name][::-1].copy()
    finding = only(checked(golden, [held], PACKED))
    assert finding.parameter == name and finding.wrong and "model.layers.1.mlp.down_proj" in finding.labels
    held[name] = golden[name] * np.float32(1.001)
    finding = only(checked(golden, [held], PACKED))
    assert finding.parameter == name and finding.kind is WeightFault.UNKNOWN and "unknown rows" in finding.words


def test_quantised_weights_and_rows_of_another_length_are_not_blamed() -> None:
    golden, held = engine(2, 1)
    name = O_PROJ.format(0)

    def quantised(each: HashedParameter) -> HashedParameter:
        return replace(each, dtype="int8") if each.name == name else each

    held[0][name] = np.round(held[0][name] * 20)
    held[0][O_PROJ.format(1)] = held[0][O_PROJ.format(1)][:, :5].copy()
    tables = tables_of(golden, held)
    (rank, table) = tables[1][0]
    actual = [(rank, replace(table, parameters=tuple(map(quantised, table.parameters))))]
    report = report_on(tables[0], actual, 1)
    assert not report.wrong
    words = {each.parameter: each.words for each in report.findings}
    assert "golden" in words[name]


def test_what_golden_does_not_have_is_not_checked() -> None:
    """Scales of a quantised weight, for example; a fused weight of which golden's parts are on no rank is unknown."""
    golden, held = engine(2, 1)
    held[0]["model.layers.0.self_attn.qkv_proj.weight_scale"] = np.linspace(1, 2, 36, dtype=np.float32)[:, None]
    finding = only(checked(golden, held))
    assert finding.kind is WeightFault.UNCHECKED and finding.words == "golden has no such parameter"
    golden, held = engine(2, 1)
    for layer in range(2):
        held[0][QKV.format(layer)] += 1
    finding = next(each for each in checked(golden, held).findings if each.kind is not WeightFault.UNHELD)
    assert (finding.kind, finding.parameter, finding.wrong) == (WeightFault.UNKNOWN, QKV.format(0), False)


def test_a_rank_that_recorded_nothing_takes_no_rows_away() -> None:
    golden = golden_weights(np.random.default_rng(0), 2)
    golden_tables, actual, ranks = tables_of(golden, [engine_weights(golden, rank, 3, padding=2) for rank in range(3)])
    for some in (actual[:2], actual[1:]):
        report = report_on(golden_tables, some, ranks)
        assert report.findings == () and report.ranks == tuple(rank for rank, _ in some)


def test_a_side_without_weights_is_not_checked() -> None:
    golden, held = engine(1, 1)
    golden_tables, actual, _ = tables_of(golden, held)
    assert map_weights([], actual) is None and map_weights(golden_tables, []) is None


def test_golden_s_copies_on_all_ranks_are_one() -> None:
    golden, held = engine(2, 2)
    _, actual, _ = tables_of(golden, held)
    copies = [(rank, table_of(golden, "pta", (1, 2))) for rank in range(2)]
    report = report_on(copies, actual, 2)
    assert report.findings == ()


def test_experts_in_one_tensor_and_apart() -> None:
    rng = np.random.default_rng(0)
    golden = {
        f"layers.{layer}.experts.{expert}.{name}.weight": rng.standard_normal((6, 4)).astype(np.float32)
        for layer in range(2)
        for expert in range(4)
        for name in ("w1", "w3")
    }
    held = [
        {
            f"layers.{layer}.experts.w13_weight": np.stack(
                [
                    np.concatenate([golden[f"layers.{layer}.experts.{expert}.{name}.weight"] for name in ("w1", "w3")])
                    for expert in range(2 * rank, 2 * rank + 2)
                ]
            )
            for layer in range(2)
        }
        for rank in range(2)
    ]
    assert checked(golden, held).findings == ()
    held[1]["layers.1.experts.w13_weight"] = held[1]["layers.1.experts.w13_weight"][::-1].copy()
    finding = only(checked(golden, held))
    assert (finding.parameter, finding.ranks, finding.wrong) == ("layers.1.experts.w13_weight", (1,), True)


def test_golden_s_rows_that_another_parameter_accounts_for_need_no_holder() -> None:
    """A head that is the embedding and more, and a vector of a module that the engine lacks, with equal values."""
    golden = golden_weights(np.random.default_rng(5), 1)
    held = [{name: golden[name] for name in ("model.embed_tokens.weight", "model.norm.weight")}]
    more = np.random.default_rng(6).standard_normal((2, HIDDEN)).astype(np.float32)
    golden = held[0] | {
        "lm_head.weight": np.concatenate([golden["model.embed_tokens.weight"], more]),
        "model.more.weight": np.concatenate([golden["model.norm.weight"][:4], more[0, :4]]),
    }
    report = checked(golden, held)
    assert not report.wrong and {each.kind for each in report.findings} == {WeightFault.UNHELD}
    assert (report.known, report.parameters) == (2, 2), "what the engine has is golden's"
