"""Labels of named rows that are together one of the other side: chunks, batches and ranks, to verdicts."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.rows import Rows
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.id_rules import IdMap, JoinRule
from aclcmp.orchestrator.plan.planner import plan_two
from tests.models.comparing import compare_pairs, layouts, reasons, statuses
from tests.pipeline.test_rows import Job, Step, rows_of, schedules, values_of

HEAD, SIZES = 4, {"q": 16, "k": 8, "v": 8}
QKV = IdMap([JoinRule(("*.q", "*.k", "*.v"), ("*.qkv",), "|")])
SPLIT = IdMap([JoinRule(("*.qkv",), ("*.q", "*.k", "*.v"), "|")])
SUM = IdMap([JoinRule(("layers.*",), ("layers.*.hidden", "layers.*.residual"), "+")])
PARTS = IdMap([JoinRule(("layers.*.hidden", "layers.*.residual"), ("layers.*",), "+")])


def columns(step: Step, name: str, layer: int) -> npt.NDArray[np.float32]:
    """Return the values of the rows of a step, as many as the label has columns."""
    at = ("qkv".index(name) + 1) * (layer + 1)
    mix = np.random.default_rng(at).standard_normal((values_of(step).shape[1], SIZES[name])).astype(np.float32)
    return values_of(step) @ mix


def cut(tensor: npt.NDArray[np.float32], ranks: int, rank: int) -> npt.NDArray[np.float32]:
    """Return a rank's columns: of fewer heads than ranks, neighbours hold the same."""
    parts = min(ranks, tensor.shape[-1] // HEAD)
    return np.ascontiguousarray(np.split(tensor, parts, -1)[rank * parts // ranks])


def judged(golden: Job, actual: Job, ranks: int, ids: IdMap) -> Judgement:
    resolved = compare_and_resolve(plan_two(golden.indices(), actual.indices(), ranks, ids), compare_pairs)
    return judge(resolved.plan, resolved.outcomes, run_failed=False, replicas=resolved.replicas)


def names_in(step: Step) -> list[tuple[int, int]]:
    return [(request, at) for request, begin, end in step for at in range(begin, end)]


@settings(max_examples=30)
@given(st.data())
def test_parts_of_rows(data: st.DataObject) -> None:
    """Separate and fused labels in other chunks, batches and on other ranks: of a wrong part one row is named."""
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    split_ranks, fused_ranks = data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([1, 2, 4]))
    fused_is_golden, wrong = data.draw(st.booleans()), data.draw(st.sampled_from("qkv"))
    broken = data.draw(st.sampled_from(names_in([(r, 0, size) for r, size in enumerate(sizes)])))
    lead = data.draw(st.sampled_from([(), (1,)]))
    of_split, of_fused = data.draw(schedules(sizes)), data.draw(schedules(sizes))
    with tempfile.TemporaryDirectory() as folder:
        split, fused = Job(Path(folder, "s"), split_ranks), Job(Path(folder, "f"), fused_ranks)
        sides = ("acl", "pta") if fused_is_golden else ("pta", "acl")
        for step in of_split:
            for rank, layer in np.ndindex(split_ranks, 3):
                for name in "qkv":
                    own = cut(columns(step, name, layer), split_ranks, rank)
                    split.label(rank, sides[0], f"{layer}.{name}", own, rows_of(step, "split "))
        for step in of_fused:
            for rank, layer in np.ndindex(fused_ranks, 3):
                parts = {name: columns(step, name, layer) for name in "qkv"}
                if layer == 1 and broken in names_in(step):
                    parts[wrong][names_in(step).index(broken)] *= 2
                value = np.concatenate([cut(each, fused_ranks, rank) for each in parts.values()], -1)
                fused.label(rank, sides[1], f"{layer}.qkv", value.reshape(*lead, *value.shape), rows_of(step, "fused "))
        golden, actual = (fused, split) if fused_is_golden else (split, fused)
        ranks = split_ranks if fused_is_golden else fused_ranks
        judgement = judged(golden, actual, ranks, SPLIT if fused_is_golden else QKV)
    expected = {f"{layer}.{name}": Status.MATCH for layer in range(3) for name in "qkv"}
    assert statuses(judgement) == expected | {f"1.{wrong}": Status.DIVERGED}
    assert judgement.coverage.complete
    part = f"part {'qkv'.index(wrong) + 1} of 3 side by side"
    assert all(part in words for words in layouts(judgement)[f"0.{wrong}"])
    (bad,) = (label for label in judgement.labels if label.key.label == f"1.{wrong}")
    one, other = ("split", "fused") if fused_is_golden else ("fused", "split")
    name = f"request {one} {broken[0]} (golden {other} {broken[0]}), position {broken[1]}, token "
    assert all(verdict.worst_row_name.startswith(name) for verdict in bad.ranks if verdict.status is Status.DIVERGED)


@settings(max_examples=30)
@given(st.data())
def test_sums_of_rows(data: st.DataObject) -> None:
    """The summands of each forward are added row by row, wherever these lie, also over ranks with columns of them."""
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    ranks, sum_is_golden = data.draw(st.sampled_from([1, 2, 4])), data.draw(st.booleans())
    broken = data.draw(st.sampled_from(names_in([(r, 0, size) for r, size in enumerate(sizes)])))
    dtype = data.draw(st.sampled_from(["float32", "float16"]))
    of_one, of_several = data.draw(schedules(sizes)), data.draw(schedules(sizes))
    with tempfile.TemporaryDirectory() as folder:
        one, several = Job(Path(folder, "o"), 1), Job(Path(folder, "s"), ranks)
        for step in of_one:
            for layer in range(3):
                stream = (columns(step, "q", layer) + columns(step, "q", layer + 7)).astype(dtype)
                one.label(0, "pta", f"layers.{layer}", stream[None], rows_of(step, "one "))
        for step in of_several:
            rows = rows_of(step, "several ")
            for layer in range(3):
                hidden, residual = columns(step, "q", layer), columns(step, "q", layer + 7)
                if layer == 1 and broken in names_in(step):
                    residual[names_in(step).index(broken)] *= 3
                for rank in range(ranks):
                    for name, each in (("hidden", hidden), ("residual", residual)):
                        value = cut(each, ranks, rank).astype(dtype)
                        several.label(rank, "pta", f"layers.{layer}.{name}", value, rows)
        pair = (one, several) if sum_is_golden else (several, one)
        judgement = judged(*pair, ranks if sum_is_golden else 1, SUM if sum_is_golden else PARTS)
    status = {"layers.0": Status.MATCH, "layers.1": Status.DIVERGED, "layers.2": Status.MATCH}
    assert statuses(judgement) == status and judgement.coverage.complete
    assert all("sum of 2 tensors" in words for words in layouts(judgement)["layers.0"])
    (bad,) = (label for label in judgement.labels if label.key.label == "layers.1")
    assert all(f", position {broken[1]}, token " in verdict.worst_row_name for verdict in bad.ranks)


def rows(requests: Sequence[int]) -> Rows:
    return Rows([f"r{request}" for request in requests], range(len(requests)), None, None)


@pytest.mark.parametrize(
    ("ids", "labels", "name", "reason"),
    [
        (QKV, {"0.qkv": [(3, 30)]}, "0.q", "the 30 columns of 0.qkv cannot be divided like 16 of 0.q"),
        (QKV, {"0.qkv": [(3,), (3,)]}, "0.v", "0.qkv ([3]) has one value in each of its named rows"),
        (SUM, {"layers.0.hidden": [(3, 16)]}, "layers.0", "summand layers.0.residual is missing on all ranks"),
    ],
    ids=["columns", "no columns", "no summand"],
)
def test_what_cannot_be_joined_is_told(
    tmp_path: Path, ids: IdMap, labels: dict[str, list[tuple[int, ...]]], name: str, reason: str
) -> None:
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    for part in "qkv":
        golden.label(0, "pta", f"0.{part}", columns([(0, 0, 3)], part, 0), rows([0, 0, 0]))
    golden.label(0, "pta", "layers.0", columns([(0, 0, 3)], "q", 0), rows([0, 0, 0]))
    for data_id, shapes in labels.items():
        for shape in shapes:
            actual.label(0, "acl", data_id, np.ones(shape, np.float32), rows([0] * shape[0]))
    judgement = judged(golden, actual, 1, ids)
    assert statuses(judgement)[name] is Status.MISMATCH
    assert any(reason in each for each in reasons(judgement, name)), reasons(judgement, name)


def test_summands_whose_rows_have_other_names(tmp_path: Path) -> None:
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    golden.label(0, "pta", "layers.0", columns([(0, 0, 3)], "q", 0), rows([0, 0, 0]))
    actual.label(0, "acl", "layers.0.hidden", columns([(0, 0, 3)], "q", 0), rows([0, 0, 0]))
    actual.label(0, "acl", "layers.0.residual", columns([(0, 0, 3)], "q", 0), rows([0, 1, 1]))
    judgement = judged(golden, actual, 1, SUM)
    assert reasons(judgement, "layers.0") == {"the rows of its summands have different names on rank 0"}
