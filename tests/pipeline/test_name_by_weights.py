"""Names and layouts that weights tell reach the plan; names of both sides and the user's rules count before them."""

from dataclasses import replace

import numpy as np

from aclcmp.labeling.layout import Layout, Replicate, Shard
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.pipeline.name_by_weights import NamedByWeights, name_by_weights
from aclcmp.orchestrator.plan.id_rules import IdMap, IdRule, JoinRule
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from tests.plan.test_planner import index, label
from tests.weights.decoder import HIDDEN, VOCABULARY, Weights, engine_weights, golden_weights, other_names, table_of
from tests.weights.test_partners import OTHER

RANKS, TOKENS = 2, 5
QKV = "h.0.attn.wqkv"
PARTS = tuple(f"model.layers.0.self_attn.{each}_proj" for each in "qkv")


def outputs(weights: Weights, side: str) -> list[LabelRecord]:
    """Return labels of the modules' outputs, as wide as their weights have rows."""
    matrices = [
        (name, weight.shape[0])
        for name, weight in weights.items()
        if weight.ndim == 2 and "embed" not in name and name != "wte.weight"
    ]
    return [label(name.removesuffix(".weight"), side, seq, (TOKENS, rows)) for seq, (name, rows) in enumerate(matrices)]


def runs(golden_side: str = "pta") -> tuple[list[ShardIndex], list[ShardIndex]]:
    golden = golden_weights(np.random.default_rng(0), 2)
    held = [other_names(engine_weights(golden, rank, RANKS), OTHER) for rank in range(RANKS)]
    held = [{name.replace("lm_head", "head"): weight for name, weight in each.items()} for each in held]
    theirs = index(0, *outputs(golden, golden_side), world_size=1)
    theirs = replace(theirs, weights=(table_of(golden, golden_side, (1, RANKS)),))
    ours = [
        replace(index(rank, *outputs(each, "acl")), weights=(table_of(each, "acl"),)) for rank, each in enumerate(held)
    ]
    return [theirs], ours


def ids_of(named: NamedByWeights) -> set[str]:
    return {record.data_id for each in named.actual for record in each.records}


def layout_of(named: NamedByWeights, name: str) -> Layout | None:
    return next(record.layout for record in named.actual[0].records if record.data_id == name)


def test_a_plan_has_golden_s_names_and_the_layouts_of_the_weights() -> None:
    golden, actual = runs()
    named = name_by_weights(golden, actual, RANKS)
    assert JoinRule(PARTS, (QKV,), "|") in named.joins and layout_of(named, "lm_head") == Layout((Shard(-1),))
    plan = plan_two(golden, named.actual, RANKS, joins=named.joins)
    assert not plan.gaps and len(plan.labels) == 2 * 7 + 1
    found = {pair.key.label: pair for pair in plan.pairs if pair.rank == 1}
    assert found["lm_head"].region.start == (0, VOCABULARY // 2)
    for place, name in enumerate(PARTS):
        assert found[name].actual_region.start == (0, place * HIDDEN // 2)
        assert found[name].layout.startswith("Shard(dim=-1), part")
    (note,) = named.notes
    assert note.startswith("names and layouts of 9 labels from the weights: h.{0-1}.attn.wqkv = model.layers.{0-1}.")


def test_one_run_of_both_sides() -> None:
    (golden,), actual = runs()
    seq = len(golden.records)
    both = [
        replace(
            each,
            records=(*golden.records, *(replace(record, seq=seq + record.seq) for record in each.records)),
            weights=(*golden.weights, *each.weights),
        )
        for each in actual
    ]
    named = name_by_weights(both, both, RANKS)
    plan = plan_run(named.actual, RANKS, joins=named.joins)
    assert not plan.gaps and len(plan.labels) == 2 * 7 + 1


def test_names_of_both_sides_count_first() -> None:
    """A module that has golden's name keeps it, though its weight is that of another: that is the fault."""
    golden, actual = runs()
    renamed = [
        replace(
            each,
            records=tuple(
                replace(record, data_id="lm_head" if record.data_id == "h.0.attn.wo" else record.data_id)
                for record in each.records
                if record.data_id != "head"
            ),
        )
        for each in actual
    ]
    assert "lm_head" in ids_of(name_by_weights(golden, renamed, RANKS))


def test_what_the_user_tells_counts_first() -> None:
    golden, actual = runs()
    ids = IdMap([IdRule("lm_head", "h.0.attn.wo")])
    named = name_by_weights(golden, actual, RANKS, ids)
    assert {"h.0.attn.wo", "head"} <= ids_of(named)
    agreeing = IdMap([IdRule("lm_head", "head"), JoinRule(PARTS, (QKV,), "|")])
    named = name_by_weights(golden, actual, RANKS, agreeing)
    assert "head" in ids_of(named) and layout_of(named, "head") == Layout((Shard(-1),))
    assert QKV not in {name for join in named.joins for name in join.actual}
    told = [
        replace(
            each,
            records=tuple(
                replace(record, layout=Layout((Replicate(),))) if record.data_id == "head" else record
                for record in each.records
            ),
        )
        for each in actual
    ]
    assert layout_of(name_by_weights(golden, told, RANKS), "lm_head") == Layout((Replicate(),))


def test_an_output_that_is_wider_than_the_slice_has_no_layout() -> None:
    """It was gathered behind the layer."""
    golden, actual = runs()
    wide = [
        replace(each, records=tuple(replace(record, shape=(TOKENS, VOCABULARY)) for record in each.records))
        for each in actual
    ]
    assert layout_of(name_by_weights(golden, wide, RANKS), "lm_head") is None


def test_two_runs_of_one_side() -> None:
    """Of a run on one rank the actual side's weights are golden's; parts on several ranks are nobody's."""
    golden, actual = runs("acl")
    assert name_by_weights(golden, actual, RANKS).report is not None
    named = name_by_weights(actual, actual[:], RANKS)
    assert named.report is None and named.notes[0].startswith("weights are not checked: both runs hold the actual")
    same = runs("pta")[0]
    report = name_by_weights(same, same[:], 1).report
    assert report is not None and not report.findings
