"""Labels that are together one of the other side: parts side by side and sums, from dumps of ranks to verdicts."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.layout import Shard, layout_of
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.inputs.id_map_file import read_map
from aclcmp.orchestrator.plan.id_rules import IdMap, JoinRule
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRule, LayoutRules
from aclcmp.orchestrator.plan.planner import plan_two
from aclcmp.orchestrator.run.sources import open_source
from tests.dumped_ranks import Tensors, dump
from tests.models.comparing import judge_runs, layouts, reasons, statuses

TOKENS, HEAD = 5, 4


def draw_values(seed: int, *shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def columns_of(tensor: npt.NDArray[np.float32], ranks: int, rank: int) -> npt.NDArray[np.float32]:
    """Return a rank's columns: of fewer heads than ranks, neighbours hold the same."""
    heads = tensor.shape[-1] // HEAD
    parts = min(ranks, heads)
    return np.split(tensor, parts, -1)[rank * parts // ranks]


QKV = IdMap([JoinRule(("*.q", "*.k", "*.v"), ("*.qkv",), "|")])
SPLIT = IdMap([JoinRule(("*.qkv",), ("*.q", "*.k", "*.v"), "|")])


@settings(max_examples=40)
@given(
    st.sampled_from([(4, 4), (8, 2), (8, 4), (4, 1)]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from("qkv"),
    st.booleans(),
    st.sampled_from([(TOKENS,), (1, TOKENS), (TOKENS, 1)]),
)
def test_parts_side_by_side(
    heads: tuple[int, int], ranks: int, split_ranks: int, wrong: str, swapped: bool, lead: tuple[int, ...]
) -> None:
    """Fused against separate, both on some ranks, or the other way about: the part that is wrong is named, no other."""
    layers = 4
    split: list[Tensors] = [{} for _ in range(split_ranks)]
    fused: list[Tensors] = [{} for _ in range(ranks)]
    for layer in range(layers):
        values = {
            name: draw_values(31 * layer + number, TOKENS, HEAD * (heads[0] if name == "q" else heads[1]))
            for number, name in enumerate("qkv")
        }
        for rank, tensors in enumerate(split):
            for name, each in values.items():
                tensors[f"{layer}.{name}"] = columns_of(each, split_ranks, rank).reshape(*lead, -1)
        for rank, tensors in enumerate(fused):
            parts = {name: columns_of(each, ranks, rank) for name, each in values.items()}
            if layer == 2:
                parts[wrong] = parts[wrong][::-1]
            tensors[f"{layer}.qkv"] = np.concatenate([*parts.values()], -1)
    with tempfile.TemporaryDirectory() as folder:
        one, other = dump(Path(folder, "split"), *split), dump(Path(folder, "fused"), *fused)
        judgement = judge_runs(other, one, SPLIT) if swapped else judge_runs(one, other, QKV)
    expected = {f"{layer}.{name}": Status.MATCH for layer in range(layers) for name in "qkv"}
    assert statuses(judgement) == expected | {f"2.{wrong}": Status.DIVERGED}
    assert judgement.coverage.complete and judgement.exit_code is ExitCode.DIVERGED and not judgement.replicas
    number = "qkv".index(wrong) + 1
    assert all(f"part {number} of 3 side by side" in words for words in layouts(judgement)[f"0.{wrong}"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_sums(tmp_path: Path, ranks: int, dtype: str) -> None:
    """Either side may be the sum; it may be cut by rows or columns, and have another shape."""
    hidden, residual, delta = (draw_values(seed, TOKENS, 8).astype(dtype) for seed in range(3))
    stream = (hidden + residual + delta)[None]
    wrong = residual * 2
    sliced = [
        {
            "layers.0": np.split(hidden, ranks, 1)[rank],
            "layers.0.1": np.split(residual, ranks, 1)[rank],
            "layers.0.2": np.split(delta, ranks, 1)[rank],
            "layers.1": np.split(hidden, ranks, 1)[rank],
            "layers.1.1": np.split(wrong, ranks, 1)[rank],
            "layers.1.2": np.split(delta, ranks, 1)[rank],
        }
        for rank in range(ranks)
    ]
    one = dump(tmp_path / "one", {"layers.0": stream, "layers.1": stream})
    several = dump(tmp_path / "several", *sliced)
    names = ("layers.*", "layers.*.1", "layers.*.2")
    for judgement in (
        judge_runs(one, several, IdMap([JoinRule(("layers.*",), names, "+")])),
        judge_runs(several, one, IdMap([JoinRule(names, ("layers.*",), "+")])),
    ):
        assert statuses(judgement) == {"layers.0": Status.MATCH, "layers.1": Status.DIVERGED}
        assert all("sum of 3 tensors" in words for words in layouts(judgement)["layers.0"])


@pytest.mark.parametrize(
    ("rule", "label", "reason"),
    [
        (
            JoinRule(("a", "b"), ("ab",), "|"),
            "a",
            "the 9 columns of ab cannot be divided like 6 of a and 4 of b on rank 0",
        ),
        (JoinRule(("x",), ("x1", "gone"), "+"), "x", "the summand gone is missing on all ranks"),
        (
            JoinRule(("x",), ("x1", "x2"), "+"),
            "x",
            "differ in dtype or shape: x1 (float32 [5, 6]) and x2 (float32 [5, 4])",
        ),
    ],
)
def test_what_cannot_be_joined_is_told(tmp_path: Path, rule: JoinRule, label: str, reason: str) -> None:
    golden = dump(tmp_path / "g", {"a": draw_values(0, 5, 6), "b": draw_values(1, 5, 4), "x": draw_values(2, 5, 6)})
    actual = dump(tmp_path / "a", {"ab": draw_values(3, 5, 9), "x1": draw_values(4, 5, 6), "x2": draw_values(5, 5, 4)})
    judgement = judge_runs(golden, actual, IdMap([rule]))
    assert statuses(judgement)[label] is Status.MISMATCH and judgement.exit_code is ExitCode.INCOMPLETE
    assert any(reason in each for each in reasons(judgement, label)), reasons(judgement, label)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("how", ["|", "+"])
def test_a_name_that_the_side_has_itself_is_told(tmp_path: Path, how: str, swapped: bool) -> None:
    """Two labels would have one name: neither is compared as the other."""
    values = [draw_values(seed, 5, 6) for seed in range(2)]
    one = dump(
        tmp_path / "one", {"one": np.concatenate(values, -1) if how == "|" else values[0] + values[1], "b": values[1]}
    )
    several = dump(tmp_path / "several", {"a": values[0], "b": values[1], "one": values[0]})
    rule = JoinRule(("a", "b"), ("one",), how) if swapped else JoinRule(("one",), ("a", "b"), how)
    judgement = judge_runs(*((several, one) if swapped else (one, several)), IdMap([rule]))
    name = "b" if how == "|" else "one"
    assert statuses(judgement)[name] is Status.MISMATCH
    assert any(f"also has a label {name} of its own" in each for each in reasons(judgement, name))


def test_the_file_of_rules(tmp_path: Path) -> None:
    """A rule that joins nothing is told by its line; what stands in quotes is one id."""
    (tmp_path / "map.txt").write_text('# fused\n*.gate | *.up -> *.gate_up\n"a | b" -> c\nnobody -> one + another\n')
    ids = read_map(tmp_path / "map.txt")
    gate, up = draw_values(0, 5, 6), draw_values(1, 5, 6)
    golden = dump(tmp_path / "g", {"0.gate": gate, "0.up": up, "a | b": gate})
    actual = dump(tmp_path / "a", {"0.gate_up": np.concatenate([gate, up], -1), "c": gate})
    assert statuses(judge_runs(golden, actual, ids)) == dict.fromkeys(["0.gate", "0.up", "a | b"], Status.MATCH)
    first, second = open_source(golden, "pta", tmp_path), open_source(actual, "acl", tmp_path)
    plan = plan_two(first.indices, second.indices, 1, ids)
    assert [note for note in plan.notes if "map" in note] == ["no label follows these rules of the map: line 4"]


@pytest.mark.parametrize("damaged", ["a", "ab", "x2"])
def test_a_damaged_file_is_told_with_its_reason(tmp_path: Path, damaged: str) -> None:
    """Not as names or shapes that do not fit: the file is named where it is damaged, on either side of a join."""
    folders = {"g": {"a": (4, 6), "b": (4, 4), "x": (4, 6)}, "h": {"ab": (4, 10), "x1": (4, 6), "x2": (4, 6)}}
    for folder, shapes in folders.items():
        (tmp_path / folder).mkdir()
        for number, (name, shape) in enumerate(shapes.items()):
            np.save(tmp_path / folder / f"{name}.npy", draw_values(number, *shape))
    (path,) = tmp_path.glob(f"*/{damaged}.npy")
    path.write_bytes(path.read_bytes()[:-20])
    ids = IdMap([JoinRule(("a", "b"), ("ab",), "|"), JoinRule(("x",), ("x1", "x2"), "+")])
    judgement = judge_runs(tmp_path / "g", tmp_path / "h", ids)
    found = statuses(judgement)
    failed = {"a": ["a"], "ab": ["a", "b"], "x2": ["x"]}[damaged]
    assert all(found[name] is Status.FAILED for name in failed)
    for name in failed:
        assert any(f"{damaged}.npy" in each and "truncated" in each for each in reasons(judgement, name))
    if damaged == "a":
        assert found["b"] is Status.MISMATCH and any("a.npy" in each for each in reasons(judgement, "b"))


def test_a_sum_is_named_as_its_one_partner(tmp_path: Path) -> None:
    """Also on the golden side, where the name of a summand would blame that."""
    golden = dump(tmp_path / "g", {"0.hidden": draw_values(0, 4, 6), "0.residual": draw_values(1, 4, 6)})
    actual = dump(tmp_path / "a", {"0": draw_values(2, 4, 6)})
    judgement = judge_runs(golden, actual, IdMap([JoinRule(("*.hidden", "*.residual"), ("*",), "+")]))
    assert statuses(judgement) == {"0": Status.DIVERGED}


def test_ranks_that_share_a_slice_are_compared_in_their_place(tmp_path: Path) -> None:
    """Golden ranks 0 and 1 hold one head, 2 and 3 the other: those that nothing is compared with are their replicas."""
    whole = {f"{layer}.k": draw_values(layer, 5, 8) for layer in range(3)}
    ranks = [{name: np.split(each, 2, -1)[rank // 2].copy() for name, each in whole.items()} for rank in range(4)]
    actual = dump(tmp_path / "a", whole)
    assert judge_runs(dump(tmp_path / "g", *ranks), actual).exit_code is ExitCode.MATCH
    ranks[3]["1.k"][2] += 1
    judgement = judge_runs(dump(tmp_path / "wrong", *ranks), actual)
    assert [(each.key.label, each.odd) for each in judgement.replicas] == [("1.k", (3,))]


def test_a_layout_of_parts_tells_their_sizes(tmp_path: Path) -> None:
    """Both ranks hold all of a and half of b: by the sizes it could as well be the other way about."""
    a, b = draw_values(0, TOKENS, 8), draw_values(1, TOKENS, 8)
    golden = dump(tmp_path / "g", {"0.a": a, "0.b": b})
    actual = dump(tmp_path / "a", *({"0.ab": np.concatenate([a, half], -1)} for half in np.split(b, 2, -1)))
    ids = IdMap([JoinRule(("*.a", "*.b"), ("*.ab",), "|")])
    assert statuses(judge_runs(golden, actual, ids))["0.a"] is not Status.MATCH
    told = LayoutRule("acl", "*.ab", layout_of(Shard(-1, parts=((8, 2), 8))), 1)
    judgement = judge_runs(golden, actual, ids, LayoutRules([told], "layouts"))
    assert statuses(judgement) == {"0.a": Status.MATCH, "0.b": Status.MATCH} and judgement.coverage.complete
