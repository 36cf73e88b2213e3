"""Joins that are proposed from the values of dumps: those that there are, on whatever ranks, and no others."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.idmap.suggest import Suggestion
from aclcmp.orchestrator.inputs.id_map_file import read_map, rule_text
from aclcmp.orchestrator.inputs.id_map_suggestion import suggestion_text
from aclcmp.orchestrator.pipeline.suggest_map import suggest_map
from aclcmp.orchestrator.plan.id_rules import IdMap
from aclcmp.orchestrator.run.sources import open_source
from tests.dumped_ranks import Tensors, dump
from tests.models.comparing import judge_runs, statuses

Array = npt.NDArray[np.float32]
TOKENS, HEAD, LAYERS = 12, 8, 3


def draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cut(tensor: Array, ranks: int, rank: int) -> Array:
    parts = min(ranks, tensor.shape[-1] // HEAD)
    return np.split(tensor, parts, -1)[rank * parts // ranks]


def suggested(golden: Path, actual: Path) -> Suggestion:
    with tempfile.TemporaryDirectory() as scratch:
        sides = [open_source(folder, side, Path(scratch)) for folder, side in ((golden, "pta"), (actual, "acl"))]
        return suggest_map(sides[0], sides[1], LocalComparer(1))


def joins(suggestion: Suggestion) -> list[str]:
    return [rule_text(each.rule) for each in suggestion.joins]


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])
@given(
    st.integers(0, 2**20),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.sampled_from([(4, 4), (8, 2), (4, 1)]),
    st.sampled_from([(TOKENS,), (1, TOKENS), (3, 4)]),
    st.booleans(),
    st.sampled_from([0.0, 0.003, 0.02]),
)
def test_what_lies_together_is_found(
    seed: int,
    ranks: int,
    split_ranks: int,
    heads: tuple[int, int],
    lead: tuple[int, ...],
    fused_is_golden: bool,
    noise: float,
) -> None:
    """Queries, keys and values beside the fused tensor, and a stream beside two summands; names say nothing."""
    split: list[Tensors] = [{} for _ in range(split_ranks)]
    fused: list[Tensors] = [{} for _ in range(ranks)]
    for layer in range(LAYERS):
        parts = [draw(seed + 9 * layer + n, TOKENS, HEAD * heads[n > 0]) for n in range(3)]
        summands = [draw(seed + 9 * layer + n, TOKENS, 64) for n in range(4, 6)]
        other = draw(seed + 9 * layer + 7, TOKENS, 64)
        error = noise * draw(seed + 9 * layer + 8, TOKENS, 64)
        for rank, tensors in enumerate(split):
            for name, each in zip(("aa", "bb", "cc"), parts, strict=True):
                tensors[f"s.{layer}.{name}"] = cut(each, split_ranks, rank).reshape(*lead, -1)
            tensors[f"s.{layer}.dd"] = cut(sum(summands) + error, split_ranks, rank).reshape(*lead, -1)
            tensors[f"s.{layer}.nothing"] = cut(other, split_ranks, rank).reshape(*lead, -1)
        for rank, tensors in enumerate(fused):
            tensors[f"f.{layer}.xx"] = np.concatenate([cut(each, ranks, rank) for each in parts], -1).reshape(*lead, -1)
            for name, each in zip(("yy", "zz"), summands, strict=True):
                tensors[f"f.{layer}.{name}"] = cut(each, ranks, rank).reshape(*lead, -1)
            tensors[f"f.{layer}.alone"] = cut(other[::-1], ranks, rank).reshape(*lead, -1)
    with tempfile.TemporaryDirectory() as folder:
        one, another = dump(Path(folder, "s"), *split), dump(Path(folder, "f"), *fused)
        golden, actual = (another, one) if fused_is_golden else (one, another)
        suggestion = suggested(golden, actual)
        rules = [("s.*.aa | s.*.bb | s.*.cc", "f.*.xx"), ("s.*.dd", "f.*.yy + f.*.zz")]
        assert sorted(joins(suggestion)) == sorted(
            " -> ".join(sides[::-1] if fused_is_golden else sides) for sides in rules
        )
        assert all(each.certain for each in suggestion.joins)
        path = Path(folder, "map")
        path.write_text(suggestion_text(suggestion, "g", "a"))
        found = statuses(judge_runs(golden, actual, read_map(path)))
    matching = [name for name, status in found.items() if status is Status.MATCH]
    assert len(matching) == LAYERS * (3 if noise > 0.001 else 4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([1, 5, TOKENS]), st.sampled_from(["unrelated", "small", "copies", "ids"]))
def test_no_join_is_proposed_where_there_is_none(seed: int, tokens: int, kind: str) -> None:
    """Unrelated tensors; a summand too small to be told from noise; copies of single partners; no floats."""
    golden: Tensors = {}
    actual: Tensors = {}
    for layer in range(2):
        for number in range(8):
            width = 32 if number % 2 else 64
            values = draw(seed + 100 * layer + number, tokens, width)
            golden[f"g.{layer}.p{number}"] = values
            actual[f"a.{layer}.r{number}"] = draw(seed + 100 * layer + number + 50, tokens, width)
            if kind == "small":  # each tensor is near one of the other side, and the others there are tiny
                actual[f"a.{layer}.r{number}"] = values * np.float32(1.05) if number < 2 else values * np.float32(1e-3)
            elif kind == "copies":
                actual[f"a.{layer}.r{number}"] = values
        if kind == "copies":
            pair = [golden[f"g.{layer}.p{number}"] for number in (1, 3)]
            golden[f"g.{layer}.both"], golden[f"g.{layer}.sum"] = np.concatenate(pair, -1), pair[0] + pair[1]
            actual[f"a.{layer}.xx"], actual[f"a.{layer}.yy"] = np.concatenate(pair, -1), pair[0] + pair[1]
        elif kind == "ids":
            golden = {name: (each > 0).astype(np.int64) for name, each in golden.items()}
            actual = {name: (each > 0).astype(np.int64) for name, each in actual.items()}
    with tempfile.TemporaryDirectory() as folder:
        suggestion = suggested(dump(Path(folder, "g"), golden), dump(Path(folder, "a"), actual))
    assert not suggestion.joins


def test_a_fault_behind_the_first_layer_does_not_hide_a_join(tmp_path: Path) -> None:
    values = [[draw(10 * layer + n, TOKENS, 64) for n in range(2)] for layer in range(20)]
    golden = {f"g.{n}.{name}": each for n, pair in enumerate(values) for name, each in zip("pq", pair, strict=True)}
    actual = {f"a.{n}.x": np.concatenate(pair, -1) * np.float32(1 + 3 * (n > 4)) for n, pair in enumerate(values)}
    suggestion = suggested(dump(tmp_path / "g", golden), dump(tmp_path / "a", actual))
    assert joins(suggestion) == ["g.*.p | g.*.q -> a.*.x"] and suggestion.joins[0].labels == 20
    assert "values agree (4 of 16 labels)" in suggestion.joins[0].reasons


def test_a_fault_in_the_first_layer_hides_it(tmp_path: Path) -> None:
    """Nothing proves it then: the first columns fit, others do not."""
    pair = [draw(n, TOKENS, 64) for n in range(2)]
    wrong = np.concatenate(pair, -1)
    wrong[:, 40:64] *= 5
    suggestion = suggested(
        dump(tmp_path / "g", {"g.0.p": pair[0], "g.0.q": pair[1]}), dump(tmp_path / "a", {"a.0.x": wrong})
    )
    assert not suggestion.joins


def test_rivals_make_it_less_certain(tmp_path: Path) -> None:
    """A copy of a part has the same values: names decide, and the score says so."""
    pair = [draw(n, TOKENS, 64) for n in range(2)]
    golden = {"net.0.gate": pair[0], "net.0.other": pair[0], "net.0.up": pair[1]}
    suggestion = suggested(
        dump(tmp_path / "g", golden), dump(tmp_path / "a", {"net.0.gate_and_up": np.concatenate(pair, -1)})
    )
    (join,) = suggestion.joins
    assert rule_text(join.rule) == "net.0.gate | net.0.up -> net.0.gate_and_up"
    assert "others have the same values" in join.reasons and "net.0.other" in suggestion.golden_only


@pytest.mark.parametrize("side", ["g", "a"])
def test_batches_whose_leading_dimensions_are_exchanged(tmp_path: Path, side: str) -> None:
    """Single labels and joins: the values of larger tensors, too, are looked at in the order of the other side."""
    shape = (2, 40, 384)
    pair = [draw(n, *shape) for n in range(2)]
    alone = draw(5, *shape)
    golden = {"g.0.p": pair[0], "g.0.q": pair[1], "g.0.u": pair[0] + pair[1], "g.0.w": alone}
    actual = {"a.0.x": np.concatenate(pair, -1), "a.0.s": pair[0] * 3, "a.0.t": pair[1] - 2 * pair[0], "a.0.v": alone}
    sides = {"g": golden, "a": actual}
    sides[side] = {name: np.ascontiguousarray(each.swapaxes(0, 1)) for name, each in sides[side].items()}
    folders = [dump(tmp_path / name, tensors) for name, tensors in sides.items()]
    suggestion = suggested(*folders)
    assert set(joins(suggestion)) == {"g.0.p | g.0.q -> a.0.x", "g.0.u -> a.0.s + a.0.t"}
    assert [rule_text(each.rule) for each in suggestion.proposals if each.certain] == ["g.0.w -> a.0.v"]
    found = statuses(judge_runs(folders[0], folders[1], IdMap(suggestion.rules)))
    assert found == dict.fromkeys(golden, Status.MATCH)


def test_a_name_that_is_joined_is_not_given_to_another(tmp_path: Path) -> None:
    """Golden has another x than actual's, which is joined, and it is actual's y: the file can be read all the same."""
    pair, other = [draw(n, TOKENS, 64) for n in range(2)], draw(7, TOKENS, 32)
    golden = dump(tmp_path / "g", {"p": pair[0], "q": pair[1], "x": other})
    actual = dump(tmp_path / "a", {"x": np.concatenate(pair, -1), "y": other})
    suggestion = suggested(golden, actual)
    assert joins(suggestion) == ["p | q -> x"] and not suggestion.proposals
    (tmp_path / "map").write_text(suggestion_text(suggestion, "g", "a"))
    assert statuses(judge_runs(golden, actual, read_map(tmp_path / "map")))["p"] is Status.MATCH


def test_a_join_whose_parts_would_be_other_labels_is_not_proposed(tmp_path: Path) -> None:
    pair, other = [draw(n, TOKENS, 64) for n in range(2)], draw(7, TOKENS, 32)
    golden = dump(tmp_path / "g", {"fused": np.concatenate(pair, -1), "x": other})
    assert not suggested(golden, dump(tmp_path / "a", {"x": pair[0], "z": pair[1]})).joins


def test_ids_that_need_quotes_are_not_joined(tmp_path: Path) -> None:
    pair = [draw(n, TOKENS, 64) for n in range(2)]
    golden = dump(tmp_path / "g", {"p p": pair[0], "q": pair[1]})
    assert not suggested(golden, dump(tmp_path / "a", {"x": np.concatenate(pair, -1)})).joins
