"""Rows that a layouts file tells: padding by masks and lengths, and calls that are joined; on either side."""

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.rows import Rows
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.inputs.layout_file import read_layouts
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from tests.dumped_ranks import dump
from tests.models.comparing import compare_pairs, judge_runs, statuses
from tests.pipeline.test_rows import WIDTH, Job, value_of

Array = npt.NDArray[np.float32]
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def rules_of(folder: Path, *lines: str) -> LayoutRules:
    (folder / "rows.txt").write_text("\n".join(lines))
    return read_layouts(folder / "rows.txt")


def request(number: int, begin: int, end: int) -> Array:
    return np.array([value_of(number, at) for at in range(begin, end)], np.float32).reshape(-1, WIDTH)


def batch(
    lengths: Sequence[int], tokens: int, left: bool, begin: Sequence[int] = ()
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return [batch, tokens, WIDTH] with NaN where there is padding, and its mask; requests go on from `begin`."""
    values, mask = (
        np.full((len(lengths), tokens, WIDTH), np.nan, np.float32),
        np.zeros((len(lengths), tokens), np.int64),
    )
    for number, length in enumerate(lengths):
        at = slice(tokens - length, tokens) if left else slice(length)
        first = begin[number] if begin else 0
        values[number, at], mask[number, at] = request(number, first, first + length), 1
    return values, mask


def judged(golden: Job, actual: Job, ranks: int, rules: LayoutRules) -> Judgement:
    resolved = compare_and_resolve(plan_two(golden.indices(), actual.indices(), ranks, None, rules), compare_pairs)
    return judge(resolved.plan, resolved.outcomes, run_failed=False)


def label_batch(
    job: Job, side: str, how: str, lengths: Sequence[int], tokens: int, ranks: int, wrong: tuple[int, int] | None
) -> str:
    """Label one forward of a batch, on ranks that hold columns, and return the rule that tells its rows."""
    left = how.endswith("left")
    values, mask = batch(lengths, tokens, left)
    if wrong is not None:
        values[wrong[0], np.flatnonzero(mask[wrong[0]])[wrong[1]]] *= 2
    if how == "packed":
        values = values[mask == 1]
    for rank in range(ranks):
        own = np.ascontiguousarray(np.split(values, ranks, -1)[rank])
        if how == "tokens first left" and tokens != len(lengths):
            own = np.ascontiguousarray(own.swapaxes(0, 1))
        job.label(rank, side, "x", own, None)
        if how.startswith("mask"):
            job.label(rank, side, "mask", mask.astype(bool) if left else mask, None)
        elif how.startswith("label"):
            job.label(rank, side, "mask", np.array(lengths, np.int32), None)
    name = "golden" if side == "pta" else "actual"
    if how.startswith("mask"):
        return f'{name} x -> Rows(mask="mask")'
    told = '"mask"' if how.startswith("label") else f"({''.join(f'{each},' for each in lengths)})"
    padded = "" if how == "packed" else f", {'left' if left else 'right'}={tokens}"
    return f"{name} x -> Rows(lengths={told}{padded})"


WAYS = ["mask left", "mask right", "label left", "label right", "numbers left", "numbers right", "packed"]
WAYS += ["tokens first left"]


@settings(max_examples=40, deadline=None, phases=PHASES)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.sampled_from(WAYS), st.sampled_from(WAYS)),
    st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 3])),
    st.data(),
)
def test_padding_on_either_side(
    lengths: list[int], more: tuple[int, int], ways: tuple[str, str], ranks: tuple[int, int], data: st.DataObject
) -> None:
    """However each side pads or packs its batch, and on whatever ranks: what lies in the padding counts nowhere."""
    number = data.draw(st.integers(0, len(lengths) - 1))
    wrong = data.draw(st.none() | st.tuples(st.just(number), st.integers(0, lengths[number] - 1)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        golden, actual = Job(folder / "g", ranks[0]), Job(folder / "a", ranks[1])
        tokens = [max(lengths) + each for each in more]
        one = label_batch(golden, "pta", ways[0], lengths, tokens[0], ranks[0], None)
        other = label_batch(actual, "acl", ways[1], lengths, tokens[1], ranks[1], wrong)
        judgement = judged(golden, actual, ranks[1], rules_of(folder, one, other))
    (label,) = (each for each in judgement.labels if each.key.label == "x")
    tells = [way.startswith(("mask", "label")) for way in ways]
    assert ("mask" in statuses(judgement)) is all(tells)  # it is compared where both sides have it
    assert label.status is (Status.MATCH if wrong is None else Status.DIVERGED)
    assert sum(verdict.stats.n for verdict in label.ranks if verdict.stats) == sum(lengths) * WIDTH
    if wrong is not None:
        assert {verdict.worst_row_name for verdict in label.ranks} == {f"request {wrong[0]}, position {wrong[1]}"}


@settings(max_examples=30, deadline=None, phases=PHASES)
@given(st.data())
def test_calls_that_are_joined(data: st.DataObject) -> None:
    """Chunks of a prefill and decode steps, cut otherwise on each side; a wrong row is named."""
    size, many = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 3))
    wrong = data.draw(st.none() | st.tuples(st.integers(0, many - 1), st.integers(0, size - 1)))
    cuts = [data.draw(st.sets(st.integers(1, size - 1))) for _ in range(2)]
    flat = many == 1 and data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = Job(folder / "g", 1), Job(folder / "a", 1)
        for job, side, cut in zip(jobs, ("pta", "acl"), cuts, strict=True):
            ends = [0, *sorted(cut), size]
            for begin, end in pairwise(ends):
                values = np.stack([request(number, begin, end) for number in range(many)])
                if side == "acl" and wrong is not None and begin <= wrong[1] < end:
                    values[wrong[0], wrong[1] - begin] *= 2
                job.label(0, side, "x", values[0] if flat and side == "acl" else values, None)
        judgement = judged(*jobs, 1, rules_of(folder, "golden ** -> Rows(joined=True)", "** -> Rows(joined=True)"))
    (label,) = judgement.labels
    assert label.status is (Status.MATCH if wrong is None else Status.DIVERGED)
    assert label.ranks[0].stats is not None and label.ranks[0].stats.n == size * many * WIDTH
    if wrong is not None:
        assert label.ranks[0].worst_row_name == f"request {wrong[0]}, position {wrong[1]}"


def test_a_padded_prefill_and_decode_steps(tmp_path: Path) -> None:
    """Left padding in the first call, none in the next ones; packed on the other side. Each call may also be apart."""
    lengths, golden, actual = [3, 1, 4], Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    for step in range(3):
        more = lengths if step == 0 else [1, 1, 1]
        begin = [0, 0, 0] if step == 0 else [each + step - 1 for each in lengths]
        values, mask = batch(more, 5 if step == 0 else 1, True, begin)
        golden.label(0, "pta", "mask", mask, None)
        golden.label(0, "pta", "x", values, None)
        actual.label(0, "acl", "lens", np.array(more), None)
        actual.label(0, "acl", "x", values[mask == 1], None)
    lines = 'golden x -> Rows(mask="mask", joined=True)', 'x -> Rows(lengths="lens", joined=True)'
    indices = golden.indices(), actual.indices()
    for joined in (True, False):
        rules = rules_of(
            tmp_path, *(line.replace(", joined=True", "" if not joined else ", joined=True") for line in lines)
        )
        plan = plan_two(*indices, 1, None, rules)
        judgement = judge(plan, compare_pairs(plan.pairs), run_failed=False)
        (label,) = (each for each in judgement.labels if each.key.label == "x")
        assert label.status is Status.MATCH and label.ranks[0].stats is not None
        assert label.ranks[0].stats.n == 14 * WIDTH


@pytest.mark.parametrize("wrong", [None, 3])
def test_files_of_a_dump(tmp_path: Path, wrong: int | None) -> None:
    """Steps of another tool's dump are tasks: they go on as one text, beside a single forward."""
    whole = request(0, 0, 5)
    dump(tmp_path / "golden", {"layers.0": whole[None], "layers.1": whole[None] * 3})
    for step, (begin, end) in enumerate([(0, 3), (3, 4), (4, 5)]):
        part = whole[None, begin:end].copy()
        dump(tmp_path / "actual" / f"step{step}", {"layers.0": part, "layers.1": part * (2 if begin == wrong else 3)})
    rules = rules_of(tmp_path, 'golden ** -> Rows(joined="tasks")', '** -> Rows(joined="tasks")')
    judgement = judge_runs(tmp_path / "golden", tmp_path / "actual", None, rules)
    expected = {"layers.0": Status.MATCH, "layers.1": Status.MATCH if wrong is None else Status.DIVERGED}
    assert statuses(judgement) == expected and judgement.coverage.complete
    if wrong is not None:
        assert judgement.labels[1].ranks[0].worst_row_name == "request 0, position 3"


def test_one_run(tmp_path: Path) -> None:
    job = Job(tmp_path / "run", 1)
    values, mask = batch([2, 4], 6, False)
    job.label(0, "pta", "mask", mask, None)
    job.label(0, "pta", "x", values, None)
    job.label(0, "acl", "x", values[mask == 1], None)
    rules = rules_of(tmp_path, 'golden x -> Rows(mask="mask")', "x -> Rows(lengths=(2, 4))")
    plan = plan_run(job.indices(), 1, rules)
    assert statuses(judge(plan, compare_pairs(plan.pairs), run_failed=False))["x"] is Status.MATCH


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("wrong", [None, 1])
def test_ranks_with_other_data(tmp_path: Path, equal: bool, wrong: int | None) -> None:
    """Data-parallel groups, two ranks each with its columns, are told by masks, or where these are equal by a rule."""
    job, by_rank = Job(tmp_path / "run", 4), ", by_rank=True" * equal
    for group in range(2 if not equal else 4):
        values, mask = batch([2, 4] if equal or not group else [3, 1], 6, False)
        values = values + np.float32(group)
        packed = values[mask == 1] * np.float32(2 if group == wrong else 1)
        ranks = [group] if equal else [2 * group, 2 * group + 1]
        for place, rank in enumerate(ranks):
            job.label(rank, "pta", "mask", mask, None)
            job.label(rank, "acl", "lengths", mask.sum(1).astype(np.int32), None)
            job.label(rank, "pta", "x", values, None)
            job.label(rank, "acl", "x", np.ascontiguousarray(np.split(packed, len(ranks), -1)[place]), None)
    lines = f'golden x -> Rows(mask="mask"{by_rank})', f'x -> Rows(lengths="lengths"{by_rank})'
    plan = plan_run(job.indices(), 4, rules_of(tmp_path, *lines))
    found = judge(plan, compare_pairs(plan.pairs), run_failed=False)
    (label,) = (each for each in found.labels if each.key.label == "x")
    hit = {1} if equal else {2, 3}
    assert {each.rank: each.status for each in label.ranks} == {
        rank: Status.DIVERGED if wrong is not None and rank in hit else Status.MATCH for rank in range(4)
    }
    assert not found.replicas


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ("lengths=(4, 2), right=6", ExitCode.INCOMPLETE),
        ("lengths=(1, 5), right=6", ExitCode.INCOMPLETE),
        ("lengths=(2, 3), right=6", ExitCode.INCOMPLETE),
        ("lengths=(3, 4), right=6", ExitCode.INCOMPLETE),
        ("lengths=(2, 4), left=6", ExitCode.DIVERGED),
        ("lengths=(3, 3)", ExitCode.INCOMPLETE),
        ("joined=True", ExitCode.INCOMPLETE),
    ],
)
def test_a_wrong_rule_is_not_green(tmp_path: Path, told: str, code: ExitCode) -> None:
    """It pairs rows that are not the same, or leaves some without a partner, on either side."""
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    values, mask = batch([2, 4], 6, False)
    values[mask == 0] = 7
    golden.label(0, "pta", "x", values[mask == 1], None)
    actual.label(0, "acl", "x", values, None)
    rules = rules_of(tmp_path, "golden x -> Rows(lengths=(2, 4))", f"x -> Rows({told})")
    judgement = judged(golden, actual, 1, rules)
    assert judgement.exit_code is code
    if told == "lengths=(2, 3), right=6":  # what is compared agrees, but a row of golden is not
        assert judgement.labels[0].ranks[0].uncovered == "actual has no row for 1 row of golden"


def test_a_wrong_rule_is_not_green_beside_rows_with_names(tmp_path: Path) -> None:
    """Golden's script named its rows; only actual's are told by a rule, which takes the last one for padding."""
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    values, mask = batch([2, 4], 6, False)
    names = Rows(["0"] * 2 + ["1"] * 4, [0, 1, 0, 1, 2, 3], None, None)
    golden.label(0, "pta", "x", values[mask == 1], names)
    values[1, 3] *= 50
    actual.label(0, "acl", "x", values, None)
    judgement = judged(golden, actual, 1, rules_of(tmp_path, "x -> Rows(lengths=(2, 3), right=6)"))
    assert judgement.exit_code is ExitCode.INCOMPLETE


def test_a_rule_that_no_label_follows_hides_none(tmp_path: Path) -> None:
    golden, actual = Job(tmp_path / "g", 1), Job(tmp_path / "a", 1)
    for job, side in ((golden, "pta"), (actual, "acl")):
        job.label(0, side, "x", request(0, 0, 3), None)
    actual.label(0, "acl", "out", request(0, 0, 3), None)
    judgement = judged(golden, actual, 1, rules_of(tmp_path, 'nobody -> Rows(mask="out")'))
    assert judgement.exit_code is ExitCode.INCOMPLETE


def test_what_was_kept_only_in_part_tells_no_rows(tmp_path: Path) -> None:
    job = Job(tmp_path / "a", 1, Capture.STATS)
    job.label(0, "acl", "x", np.ones((4, 600, 3), np.float32), None)
    job.label(0, "acl", "mask", np.ones((4, 600), np.bool_), None)
    with pytest.raises(UsageError, match="mask is to tell rows, but only its stats was kept"):
        plan_run(job.indices(), 1, rules_of(tmp_path, 'x -> Rows(mask="mask")'))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('x -> Rows(mask="nobody")', "rows.txt:1: nobody is to tell the rows of x: rank 0 has none in task 0, call 1"),
        ('x -> Rows(mask="flat")', "rows.txt:1: flat has the shape [6], not [batch, tokens]"),
        ('x -> Rows(lengths="x")', ""),
        ('x -> Rows(lengths="half")', "half is to tell rows, but its values are not whole numbers"),
        ("x -> Rows(lengths=(1, 9), left=6)", "rows.txt:1: a length of 9, of requests that are padded to 6"),
        ('x -> Rows(lengths="rows", left=6)', "rows.txt:1: rows has the shape [1, 2] or is negative"),
        ("x -> Rows(lengths=(1,), left=6, right=6)", "write e.g. Rows(mask="),
        ("x -> Rows(left=6)", "write e.g. Rows(mask="),
        ("x -> Rows(mask=3)", "rows.txt:1: 'Rows(mask=3)': write e.g. Rows(mask="),
        ("x -> Rows(lengths=(1,), up=3)", "write e.g. Rows(mask="),
        ("x -> Rows(lengths=(1.5,))", "write e.g. Rows(mask="),
        ('x -> Rows(mask="a", lengths="b")', "write e.g. Rows(mask="),
        ("x -> Rows(nothing=1)", "write e.g. Rows(mask="),
        ('x -> Rows(joined="calls")', "write e.g. Rows(mask="),
        ("x -> Rows(mask=open('x'))", "write e.g. Rows(mask="),
        ("x -> Rows(joined", "write e.g. Rows(mask="),
        ("x -> Rows(joined=1)", "write e.g. Rows(mask="),
        ('x -> Rows()(mask="a")', "write e.g. Rows(mask="),
        ("x -> Rows(lengths=(99999999999999999999,))", "write e.g. Rows(mask="),
        ("x -> Rows(lengths=(3,), left=99999999999999999999)", "write e.g. Rows(mask="),
        ("x -> Rows(lengths=(9999999, 9999999))", "lengths of 19,999,998 rows, of a tensor of"),
    ],
)
def test_what_a_rule_cannot_tell(tmp_path: Path, line: str, told: str) -> None:
    job = Job(tmp_path / "a", 1)
    values, _ = batch([2, 4], 6, False)
    told_by = ("flat", np.ones(6, np.int64)), ("half", np.array([0.5, 1])), ("rows", np.ones((1, 2), np.int64))
    for name, value in (("x", values), *told_by):
        job.label(0, "acl", name, value, None)
    indices = job.indices()
    if not told:
        assert "no label follows" in rules_of(tmp_path, line).apply(indices, "acl")[1][0]
        return
    with pytest.raises(UsageError) as caught:
        rules_of(tmp_path, line).apply(indices, "acl")
    assert told in str(caught.value) and "\n" not in str(caught.value)
