"""What shapes leave open the values settle: on plans of real indices, compared in this process."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.labeling.layout import Layout, Replicate, Shard
from aclcmp.labeling.shard.checksum import payload_checksum
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.core.plan import Plan
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from tests.models.comparing import compare_pairs

Array = npt.NDArray[np.floating]
RANDOM = np.random.default_rng(0)


class Run:
    """Tensors of ranks in plain files, and their indices."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._labels: dict[int, list[LabelRecord]] = {}
        self.compared = 0
        self.notes: tuple[str, ...] = ()

    def label(self, rank: int, side: str, name: str, array: Array, layout: Layout | None = None) -> None:
        labels = self._labels.setdefault(rank, [])
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        with (self._folder / f"rank{rank:05d}.h5").open("ab") as file:
            offset = file.tell()
            file.write(bits.tobytes())
        dtype, seq = array.dtype.name, len(labels)
        record = LabelRecord(0, name, 0, side, seq, float(seq), "f.py:1", dtype, array.shape, "cpu")
        checksum = payload_checksum(bits)
        labels.append(replace(record, offset=offset, nbytes=bits.nbytes, checksum=checksum, layout=layout))

    def indices(self) -> list[ShardIndex]:
        size = len(self._labels)
        return [
            ShardIndex(
                ShardFiles(self._folder, rank, 0),
                ShardHeader("r", rank, size, rank, 0, "here", 1, 0.0),
                tuple(labels),
            )
            for rank, labels in self._labels.items()
        ]

    def plan(self, golden: "Run | None" = None) -> Plan:
        own = self.indices()
        return plan_run(own, len(own)) if golden is None else plan_two(golden.indices(), own, len(own))

    def compare(self, pairs: Sequence[Pair]) -> Outcomes:
        self.compared += len(pairs)
        return compare_pairs(pairs)

    def judged(self, golden: "Run | None" = None) -> Judgement:
        done = compare_and_resolve(self.plan(golden), self.compare)
        assert not done.plan.questions
        self.notes = done.plan.notes
        return judge(done.plan, done.outcomes, run_failed=False, replicas=done.replicas)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def random(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def statuses(judgement: Judgement, label: str) -> list[Status]:
    (found,) = (each for each in judgement.labels if each.key.label == label)
    return [verdict.status for verdict in found.ranks]


def layouts(judgement: Judgement, label: str) -> set[str]:
    return {v.layout for each in judgement.labels if each.key.label == label for v in each.ranks}


def parallel(run: Run, name: str, by: str, *, wrong: Sequence[int] = ()) -> None:
    """Four ranks: two groups, each rank with its own group's golden whole, or each slice of one whole held twice."""
    wholes = [random(6, 8), random(6, 8)]
    for rank in range(4):
        group, part = divmod(rank, 2)
        whole = wholes[group] if by == "groups" else wholes[0]
        actual = np.split(whole, 2, axis=1)[part if by == "groups" else group].copy()
        run.label(rank, "pta", name, whole)
        run.label(rank, "acl", name, -actual if rank in wrong else actual)


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("groups", "Shard(dim=1) in 2 groups of ranks, inferred"),
        ("copies", "Shard(dim=1), Replicate(), proved on the values"),
    ],
)
def test_the_values_tell_groups_from_copies(run: Run, by: str, words: str) -> None:
    parallel(run, "k", by)
    judgement = run.judged()
    assert statuses(judgement, "k") == [Status.MATCH] * 4
    assert layouts(judgement, "k") == {words}


def test_a_fault_on_one_rank_does_not_hide_the_layout(run: Run) -> None:
    parallel(run, "k", "groups", wrong=[3])
    assert statuses(run.judged(), "k") == [Status.MATCH] * 3 + [Status.DIVERGED]


def test_what_is_wrong_in_every_layout_is_wrong_and_the_layouts_are_named(run: Run) -> None:
    for rank in range(4):
        run.label(rank, "pta", "k", random(6, 8))
        run.label(rank, "acl", "k", random(6, 4))
    judgement = run.judged()
    assert statuses(judgement, "k") == [Status.DIVERGED] * 4 and judgement.exit_code == 1
    assert layouts(judgement, "k") == {"Shard(dim=1) in 2 groups of ranks, one of several that fit"}
    (note,) = (note for note in run.notes if note.startswith("k is wrong under each of the 2 layouts"))
    assert "k -> Shard(dim=1, ranks=(0, 1)) | k -> Shard(dim=1, ranks=(2, 3))" in note


def test_golden_that_differs_between_ranks_tells_their_groups(run: Run) -> None:
    """Ranks that share a tensor have one golden: those with another one are of another group."""
    parallel(run, "k", "groups", wrong=range(4))
    judgement = run.judged()
    assert statuses(judgement, "k") == [Status.DIVERGED] * 4
    assert layouts(judgement, "k") == {"Shard(dim=1) in 2 groups of ranks, inferred"}


def test_sound_layers_prove_the_layout_of_one_that_is_wrong_everywhere(run: Run) -> None:
    for layer in range(4):
        parallel(run, f"layers.{layer}.k", "groups", wrong=range(4) if layer == 2 else ())
    judgement = run.judged()
    assert statuses(judgement, "layers.2.k") == [Status.DIVERGED] * 4
    assert judgement.first_divergence is not None and judgement.first_divergence.key.label == "layers.2.k"


def test_equal_values_everywhere_need_no_proof(run: Run) -> None:
    """A mask of ones is the same wherever it lies."""
    for rank in range(4):
        run.label(rank, "pta", "mask", np.ones((4, 4), np.float32))
        run.label(rank, "acl", "mask", np.ones((2, 4), np.float32))
        run.label(rank, "acl", "other", random(2))
        run.label(rank, "pta", "other", random(2))
    assert statuses(run.judged(), "mask") == [Status.MATCH] * 4


def context_parallel(run: Run, name: str, *, zigzag: bool, wrong: Sequence[int] = ()) -> None:
    whole = random(16, 4)
    chunks = np.split(whole, 8)
    run.label(0, "pta", name, whole)
    for rank in range(4):
        local = np.concatenate([chunks[rank], chunks[7 - rank]]) if zigzag else np.split(whole, 4)[rank]
        run.label(rank, "acl", name, -local if rank in wrong else local)


def test_zigzag_is_found_where_plain_slices_do_not_hold(run: Run) -> None:
    for layer in range(6):
        context_parallel(run, f"layers.{layer}.x", zigzag=True, wrong=[2] if layer == 4 else ())
    judgement = run.judged()
    assert layouts(judgement, "layers.5.x") == {"Shard(dim=0, zigzag=True), proved on the values"}
    assert statuses(judgement, "layers.4.x") == [Status.MATCH, Status.MATCH, Status.DIVERGED, Status.MATCH]
    assert all(statuses(judgement, f"layers.{n}.x") == [Status.MATCH] * 4 for n in range(6) if n != 4)


def test_a_fault_from_some_layer_on_costs_no_second_look(run: Run) -> None:
    for layer in range(6):
        context_parallel(run, f"layers.{layer}.x", zigzag=False, wrong=range(4) if layer > 2 else ())
    judgement = run.judged()
    assert run.compared == 6 * 4
    assert statuses(judgement, "layers.3.x") == [Status.DIVERGED] * 4
    assert layouts(judgement, "layers.3.x") == {"Shard(dim=0), inferred"}


def test_where_nothing_holds_the_first_reading_stays(run: Run) -> None:
    context_parallel(run, "x", zigzag=False, wrong=range(4))
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.DIVERGED] * 4
    assert layouts(judgement, "x") == {"Shard(dim=0), inferred"}


def replicated(run: Run, arrays: Sequence[Array], *, told: bool = True, golden: Sequence[Array] | None = None) -> None:
    layout = Layout((Replicate(),)) if told else None
    for rank, array in enumerate(arrays):
        if golden is not None:
            run.label(rank, "pta", "norm", golden[rank])
        run.label(rank, "acl", "norm", array, layout)


def test_the_odd_rank_of_told_replicas_diverges_without_golden(run: Run) -> None:
    whole = random(4, 4)
    replicated(run, [whole, whole, -whole, whole])
    judgement = run.judged()
    assert statuses(judgement, "norm") == [Status.MISSING, Status.MISSING, Status.DIVERGED, Status.MISSING]
    (odd,) = judgement.replicas
    assert (odd.odd, odd.agreeing, odd.side) == ((2,), (0, 1, 3), "actual")
    assert "differs from that of ranks 0, 1, 3: relative L2 up to 2" in judgement.labels[0].ranks[2].reason


def test_of_two_that_differ_golden_tells_which_is_wrong(run: Run) -> None:
    whole = random(4, 4)
    replicated(run, [-whole, whole], golden=[whole, whole])
    judgement = run.judged()
    assert statuses(judgement, "norm") == [Status.DIVERGED, Status.MATCH]
    assert [(each.odd, each.agreeing) for each in judgement.replicas] == [((0,), (1,))]


def test_of_two_that_differ_without_golden_none_is_known_to_be_right(run: Run) -> None:
    whole = random(4, 4)
    replicated(run, [-whole, whole])
    assert statuses(run.judged(), "norm") == [Status.DIVERGED] * 2


@pytest.mark.parametrize("odd", range(4))
def test_where_all_differ_by_round_off_the_odd_one_is_found(run: Run, odd: int) -> None:
    whole = random(4, 4)
    noisy = [whole * np.float32(1 + 1e-6 * (rank + 1)) for rank in range(4)]
    noisy[odd] = -whole
    replicated(run, noisy)
    (found,) = run.judged().replicas
    assert found.odd == (odd,)


def test_round_off_between_replicas_is_none_of_their_faults(run: Run) -> None:
    whole = random(4, 4)
    replicated(run, [whole, whole, whole * np.float32(1 + 1e-6)], golden=[whole] * 3)
    judgement = run.judged()
    assert not judgement.replicas and judgement.exit_code == 0


def test_a_golden_replica_that_differs_is_told_though_both_its_sides_agree(run: Run) -> None:
    """Rank 1 computes something else on both sides: each matches its own golden."""
    whole = random(4, 8)
    for rank in range(4):
        golden = 2 * whole if rank == 1 else whole
        run.label(rank, "pta", "x", golden)
        run.label(rank, "acl", "x", np.split(golden, 4, axis=1)[rank])
    judgement = run.judged()
    assert [(each.side, each.odd) for each in judgement.replicas] == [("golden", (1,))]
    assert statuses(judgement, "x") == [Status.MATCH, Status.DIVERGED, Status.MATCH, Status.MATCH]


def test_slices_of_equal_shapes_are_no_replicas(run: Run) -> None:
    parts = [random(4, 4) for _ in range(4)]
    replicated(run, parts, told=False, golden=parts)
    judgement = run.judged()
    assert not judgement.replicas and judgement.exit_code == 0


def test_a_batch_that_told_groups_share(run: Run) -> None:
    """Golden: one process with a batch of 2; actual: two data-parallel groups of two that each tell their own ranks."""
    whole = random(2, 3, 8)
    run.label(0, "pta", "x", whole)
    for rank in range(4):
        group = range(rank // 2 * 2, rank // 2 * 2 + 2)
        run.label(rank, "acl", "x", whole[rank // 2 :][:1], Layout((Replicate(group),)))
        run.label(
            rank, "acl", "q", whole[rank // 2 :][:1, :, rank % 2 * 4 :][:, :, :4], Layout((Shard(2, ranks=group),))
        )
    run.label(0, "pta", "q", whole)
    judgement = run.judged()
    assert statuses(judgement, "x") == statuses(judgement, "q") == [Status.MATCH] * 4


@pytest.mark.parametrize("parts", [(8, 8), (6, 6, 6), (8, 4, 4), (16, 2, 2)])
def test_fused_projections_are_found_where_plain_slices_do_not_hold(run: Run, parts: tuple[int, ...]) -> None:
    for layer in range(4):
        whole = random(3, sum(parts))
        run.label(0, "pta", f"{layer}.qkv", whole)
        cut = [np.split(part, 2, axis=1) for part in np.split(whole, np.cumsum(parts)[:-1], axis=1)]
        for rank in range(2):
            local = np.concatenate([each[rank] for each in cut], axis=1)
            run.label(rank, "acl", f"{layer}.qkv", -local if (rank, layer) == (1, 2) else local)
    judgement = run.judged()
    assert statuses(judgement, "2.qkv") == [Status.MATCH, Status.DIVERGED]
    assert statuses(judgement, "3.qkv") == [Status.MATCH] * 2
    half = tuple(part // 2 for part in parts)
    assert layouts(judgement, "1.qkv") == {f"Shard(dim=1, parts={half}), proved on the values"}


def test_a_missing_reduction_is_not_explained_away(run: Run) -> None:
    """Summands beside the whole are the fault itself, unless a layout says that they are to be added."""
    parts = [random(3, 8) for _ in range(4)]
    for rank, part in enumerate(parts):
        run.label(rank, "pta", "o", np.sum(parts, axis=0, dtype=np.float32))
        run.label(rank, "acl", "o", part)
        run.label(rank, "acl", "a quarter", parts[0] / 4)
        run.label(rank, "pta", "a quarter", parts[0])
    judgement = run.judged()
    assert statuses(judgement, "o") == statuses(judgement, "a quarter") == [Status.DIVERGED] * 4


def slices(run: Run, name: str, ranks: Sequence[int], *, golden: Sequence[int] = (0,)) -> None:
    whole = random(4, 8)
    for rank in golden:
        run.label(rank, "pta", name, whole)
    for rank in ranks:
        run.label(rank, "acl", name, np.split(whole, 4, axis=1)[rank])


@pytest.mark.parametrize("golden", [(0,), (0, 1, 2, 3)])
def test_a_lost_slice_is_told_though_its_rank_has_the_golden_whole(run: Run, golden: tuple[int, ...]) -> None:
    slices(run, "x", (1, 2, 3), golden=golden)
    slices(run, "y", range(4))
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.MISSING] + [Status.MATCH] * 3 and judgement.exit_code == 4
    assert judgement.coverage.missing_actual == 1


def test_a_layer_that_is_cut_otherwise_than_all_others_is_wrong(run: Run) -> None:
    for layer in range(6):
        whole = random(8, 8)
        run.label(0, "pta", f"layers.{layer}.x", whole)
        for rank, part in enumerate([0, 0, 1, 1] if layer == 2 else [0, 1, 0, 1]):
            run.label(rank, "acl", f"layers.{layer}.x", np.split(whole, 2, axis=1)[part])
    judgement = run.judged()
    assert statuses(judgement, "layers.2.x") == [Status.MATCH, Status.DIVERGED, Status.DIVERGED, Status.MATCH]
    assert statuses(judgement, "layers.3.x") == [Status.MATCH] * 4


def test_zeros_prove_nothing(run: Run) -> None:
    """A warm-up step of zeros agrees with plain slices; what follows is in zigzag order."""
    for layer in range(4):
        whole = np.zeros((16, 4), np.float32) if layer == 0 else random(16, 4)
        chunks = np.split(whole, 8)
        run.label(0, "pta", f"layers.{layer}.x", whole)
        for rank in range(4):
            run.label(rank, "acl", f"layers.{layer}.x", np.concatenate([chunks[rank], chunks[7 - rank]]))
    judgement = run.judged()
    assert judgement.exit_code == 0
    assert layouts(judgement, "layers.2.x") == {"Shard(dim=0, zigzag=True), proved on the values"}


def test_key_value_heads_held_twice_beside_golden_on_two_ranks(run: Run, tmp_path: Path) -> None:
    """Golden is surely one tensor on both ranks: it is no slice of a larger one."""
    other = Run(tmp_path / "other")
    whole = random(8, 4)
    for rank in range(2):
        other.label(rank, "pta", "k", whole)
    for rank in range(4):
        run.label(rank, "acl", "k", np.split(whole, 2)[rank // 2])
    judgement = run.judged(golden=other)
    assert statuses(judgement, "k") == [Status.MATCH] * 4
    assert layouts(judgement, "k") == {"Shard(dim=0), Replicate(), proved on the values"}


@pytest.mark.parametrize("told", [True, False])
def test_golden_tensors_of_another_run_that_nobody_compares_are_told(run: Run, tmp_path: Path, told: bool) -> None:
    other = Run(tmp_path / "other")
    whole = random(4, 4)
    for rank in range(4):
        other.label(rank, "pta", "x", -whole if rank == 3 else whole, Layout((Replicate(),)) if told else None)
    run.label(0, "acl", "x", whole)
    judgement = run.judged(golden=other)
    assert statuses(judgement, "x") == [Status.MATCH] and judgement.exit_code == 4
    assert {(each.side, each.odd) for each in judgement.replicas} == {("golden", (3,))}
    assert judgement.coverage.replicas


def test_replicas_of_other_types_are_compared_and_what_is_not_compared_is_not_green(run: Run) -> None:
    whole = random(4, 4)
    for rank in range(3):
        array = -whole.astype(np.float16) if rank == 2 else whole
        run.label(rank, "pta", "x", array, Layout((Replicate(),)))
        run.label(rank, "acl", "x", array, Layout((Replicate(),)))
    assert statuses(run.judged(), "x") == [Status.MATCH, Status.MATCH, Status.DIVERGED]
    calls = []

    def interrupted(pairs: Sequence[Pair]) -> Outcomes:
        calls.append(len(pairs))
        return run.compare(pairs) if len(calls) == 1 else {}

    done = compare_and_resolve(run.plan(), interrupted)
    judgement = judge(done.plan, done.outcomes, run_failed=False, replicas=done.replicas)
    assert len(calls) > 1 and judgement.exit_code == 4 and judgement.coverage.replicas == 2


def test_golden_parts_of_several_types_are_not_weighed_as_one(run: Run) -> None:
    parts = [random(4, 8), random(4, 8)]
    for rank in range(2):
        golden = parts[rank].astype(np.float16) if rank else parts[rank]
        run.label(rank, "pta", "x", golden, Layout((Shard(0),)))
        run.label(rank, "acl", "x", np.concatenate(parts))
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.MISMATCH] * 2
    assert "several types: float16, float32" in judgement.labels[0].ranks[0].reason


def test_a_second_look_at_one_group_loses_no_other(run: Run) -> None:
    """Two told groups; in each, golden is cut by columns on other ranks without a word."""
    for group in range(2):
        whole = random(6, 8)
        ranks = range(2 * group, 2 * group + 2)
        for rank in ranks:
            run.label(rank, "pta", "x", np.split(-whole if group else whole, 2, axis=1)[rank % 2])
            run.label(rank, "acl", "x", np.split(whole, 2)[rank % 2], Layout((Shard(0, ranks=ranks),)))
    assert statuses(run.judged(), "x") == [Status.MATCH] * 2 + [Status.DIVERGED] * 2


def reasons(judgement: Judgement, label: str) -> list[str]:
    (found,) = (each for each in judgement.labels if each.key.label == label)
    return [verdict.reason for verdict in found.ranks]


@pytest.mark.parametrize("make", [np.zeros, np.ones, lambda shape, dtype: random(*shape)])
@pytest.mark.parametrize(
    ("golden", "actual", "words"),
    [
        ((1, 1, 24, 24), (1, 1, 24, 25), "1 column more; columns 0-23"),
        ((24,), (25,), "1 value more; values 0-23"),
        ((24, 16), (32, 16), "8 rows more; rows 0-23"),
        ((32, 16), (24, 16), "8 rows fewer; rows 0-23"),
        ((3, 3, 4, 5), (1, 3, 4, 5), "2 slices of dimension 0 fewer; slice 0 of dimension 0"),
    ],
)
def test_no_size_is_invented(run: Run, make, golden: tuple[int, ...], actual: tuple[int, ...], words: str) -> None:
    """Other sizes than golden's are a mismatch, which says whether what both have agrees, however equal the values."""
    whole = make(tuple(map(max, golden, actual)), np.float32)
    for rank in range(2):
        run.label(rank, "pta", "x", whole[tuple(map(slice, golden))])
        run.label(rank, "acl", "x", whole[tuple(map(slice, actual))])
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.MISMATCH] * 2 and judgement.exit_code == 4
    assert reasons(judgement, "x") == [f"golden {list(golden)}, actual {list(actual)}: {words} agree bit by bit"] * 2
    assert judgement.coverage.mismatch == 2 and judgement.coverage.compared == 0


def test_what_both_have_may_differ(run: Run) -> None:
    run.label(0, "pta", "x", random(24, 16))
    run.label(0, "acl", "x", random(25, 16))
    (reason,) = reasons(run.judged(), "x")
    assert reason.startswith("golden [24, 16], actual [25, 16]: 1 row more; rows 0-23 differ: relative L2 1.")


def test_padding_that_the_values_prove_and_padding_that_they_do_not(run: Run) -> None:
    whole, pad = random(3, 13), random(3, 3)
    for rank, part in enumerate(np.split(np.concatenate([whole, pad], 1), 4, axis=1)):
        run.label(rank, "pta", "logits", whole)
        run.label(rank, "acl", "logits", part)
        run.label(rank, "pta", "zeros", np.zeros((3, 13), np.float32))
        run.label(rank, "acl", "zeros", np.zeros((3, 4), np.float32))
    judgement = run.judged()
    assert statuses(judgement, "logits") == [Status.MATCH] * 4
    assert layouts(judgement, "logits") == {"Shard(dim=1, size=13), proved on the values"}
    assert statuses(judgement, "zeros") == [Status.MISMATCH] * 4, "constant values prove nothing"


def test_a_rank_of_which_all_is_padding_is_not_green(run: Run) -> None:
    for rank in range(3):
        run.label(rank, "pta", "x", random(5, 4) if rank == 0 else run_golden(run))
        run.label(rank, "acl", "x", run_golden(run, 6), Layout((Shard(0, size=5),)))
    judgement = run.judged()
    assert statuses(judgement, "x")[1:] == [Status.MISMATCH] * 2
    assert "all of its [6, 4] is padding by the layout Shard(dim=0, size=5)" in reasons(judgement, "x")[1]


def run_golden(run: Run, rows: int = 5) -> Array:
    return np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)


@pytest.mark.parametrize("odd", [0, 1, 5, 7])
def test_one_odd_layer_is_the_fault_and_not_the_seven_others(run: Run, odd: int) -> None:
    for layer in range(8):
        gate, up = random(6, 16), random(6, 16)
        run.label(0, "pta", f"layers.{layer}.mlp.gate_up_proj", np.concatenate([gate, up], 1))
        for rank in range(4):
            fused = np.concatenate([np.split(gate, 4, axis=1)[rank], np.split(up, 4, axis=1)[rank]], 1)
            plain = np.split(np.concatenate([gate, up], 1), 4, axis=1)[rank]
            run.label(rank, "acl", f"layers.{layer}.mlp.gate_up_proj", plain if layer == odd else fused)
    judgement = run.judged()
    wrong = [each.key.label for each in judgement.labels if each.status is Status.DIVERGED]
    assert wrong == [f"layers.{odd}.mlp.gate_up_proj"]
    (note,) = (note for note in run.notes if note.startswith(wrong[0]))
    assert "its values agree as Shard(dim=1), those of most of its kind as Shard(dim=1, parts=(4, 4))" in note


def test_a_layout_that_all_layers_share_but_a_name_speaks_against_is_told(run: Run) -> None:
    for layer in range(3):
        whole = random(6, 24)
        run.label(0, "pta", f"layers.{layer}.attn.qkv_proj", whole)
        for rank, part in enumerate(np.split(whole, 2, axis=1)):
            run.label(rank, "acl", f"layers.{layer}.attn.qkv_proj", part)
    assert run.judged().exit_code == 0
    assert [note for note in run.notes if note.startswith("layers.*.attn.qkv_proj: read as plain slices")]


def test_keys_in_another_order_of_ranks_than_queries_are_told(run: Run) -> None:
    for layer in range(3):
        q, k = random(6, 16), random(6, 8)
        for rank in range(4):
            run.label(rank, "pta", f"layers.{layer}.q", q)
            run.label(rank, "acl", f"layers.{layer}.q", np.split(q, 4, axis=1)[rank])
            run.label(rank, "pta", f"layers.{layer}.k", k)
            run.label(rank, "acl", f"layers.{layer}.k", np.split(k, 2, axis=1)[rank % 2])
    assert run.judged().exit_code == 0
    assert [note for note in run.notes if note.startswith("layers.*.k: its slices lie on the ranks in another order")]


@pytest.mark.parametrize("make", [np.zeros, np.ones, lambda shape, dtype: random(*shape)])
@pytest.mark.parametrize("times", [2, 4])
def test_golden_that_is_equal_on_all_ranks_is_no_set_of_slices(run: Run, make, times: int) -> None:
    """Though the sizes would fit: two of golden's, side by side, are as long as actual's."""
    whole = make((6 * times, 4), np.float32)
    for rank in range(times):
        run.label(rank, "pta", "x", whole[:6])
        run.label(rank, "acl", "x", whole)
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.MISMATCH] * times and judgement.exit_code == 4
    assert f"{6 * times - 6} rows more; rows 0-5 agree bit by bit" in reasons(judgement, "x")[0]


def test_golden_slices_that_differ_are_one_whole(run: Run) -> None:
    whole = random(12, 4)
    for rank, part in enumerate(np.split(whole, 2)):
        run.label(rank, "pta", "x", part)
        run.label(rank, "acl", "x", whole)
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.MATCH] * 2 and judgement.exit_code == 0


def test_equal_golden_beside_slices_of_it(run: Run) -> None:
    whole = random(12, 4)
    for rank, part in enumerate(np.split(whole, 2)):
        run.label(rank, "pta", "x", whole)
        run.label(rank, "acl", "x", part)
    assert statuses(run.judged(), "x") == [Status.MATCH] * 2
    assert layouts(run.judged(), "x") == {"Shard(dim=0), inferred"}


@pytest.mark.parametrize("short", [0, 1, 3])
@pytest.mark.parametrize("wrong", [None, 0, 3])
def test_rows_that_one_rank_of_several_padded(run: Run, short: int, wrong: int | None) -> None:
    """Each rank has a batch and a golden of its own; one was filled up to the others' size, which is said."""
    for rank in range(4):
        golden = random(5 if rank == short else 6, 4)
        padded = np.concatenate([golden, np.zeros((6 - len(golden), 4), np.float32)])
        run.label(rank, "pta", "x", golden)
        run.label(rank, "acl", "x", -padded if rank == wrong else padded)
    judgement = run.judged()
    words = (*reasons(judgement, "x"), *layouts(judgement, "x"))
    assert any("1 row more; rows 0-4" in each or "size=23), proved on the values" in each for each in words)
    if wrong is None:
        assert {Status.DIVERGED, Status.MISSING}.isdisjoint(statuses(judgement, "x"))
    else:
        assert judgement.exit_code != 0 and statuses(judgement, "x")[wrong] in (Status.DIVERGED, Status.MISMATCH)


@pytest.mark.parametrize("wrong", [False, True])
def test_told_padding_hides_the_told_rows_only(run: Run, wrong: bool) -> None:
    whole, pad = random(5, 4), random(1, 4)
    for rank, part in enumerate(np.split(np.concatenate([whole, pad]), 2)):
        part = part.copy()
        part[1 if rank else 0] += wrong
        run.label(rank, "pta", "x", whole)
        run.label(rank, "acl", "x", part, Layout((Shard(0, size=5),)))
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.DIVERGED if wrong else Status.MATCH] * 2


def test_two_odd_layers_of_eight_and_a_wrong_one(run: Run) -> None:
    """Two are cut in another way; one agrees in no way at all."""
    for layer in range(8):
        gate, up = random(6, 8), random(6, 8)
        whole = np.concatenate([gate, up], 1)
        run.label(0, "pta", f"layers.{layer}.gate_up", whole)
        for rank in range(2):
            fused = np.concatenate([np.split(gate, 2, axis=1)[rank], np.split(up, 2, axis=1)[rank]], 1)
            local = np.split(whole, 2, axis=1)[rank] if layer in (2, 6) else fused
            run.label(rank, "acl", f"layers.{layer}.gate_up", -local if layer == 4 else local)
    judgement = run.judged()
    wrong = {each.key.label for each in judgement.labels if each.status is Status.DIVERGED}
    assert wrong == {"layers.2.gate_up", "layers.4.gate_up", "layers.6.gate_up"}
    told = {note.split(":")[0] for note in run.notes if "it is cut in another way" in note}
    assert told == {"layers.2.gate_up", "layers.6.gate_up"}


def test_nothing_speaks_against_layouts_that_names_and_siblings_bear_out(run: Run) -> None:
    for layer in range(3):
        gate, up, q, k = (random(6, 8) for _ in range(4))
        for rank in range(2):
            halves = [np.split(each, 2, axis=1)[rank] for each in (gate, up, q, k)]
            for side, gate_up, attn in (("pta", (gate, up), (q, k)), ("acl", halves[:2], halves[2:])):
                run.label(rank, side, f"layers.{layer}.mlp.gate_up_proj", np.concatenate(gate_up, 1))
                for name, each in zip("qk", attn, strict=True):
                    run.label(rank, side, f"layers.{layer}.attn.{name}", each)
    judgement = run.judged()
    assert judgement.exit_code == 0 and run.notes == ()
    assert layouts(judgement, "layers.1.mlp.gate_up_proj") == {"Shard(dim=1, parts=(4, 4)), proved on the values"}


def test_a_layout_that_is_told_raises_no_doubt(run: Run) -> None:
    whole = random(6, 24)
    for rank, part in enumerate(np.split(whole, 2, axis=1)):
        run.label(rank, "pta", "attn.qkv_proj", whole)
        run.label(rank, "acl", "attn.qkv_proj", part, Layout((Shard(1),)))
    assert run.judged().exit_code == 0 and run.notes == ()


@pytest.mark.parametrize("wrong", [False, True])
def test_an_output_layer_under_two_groups_of_two(run: Run, wrong: bool) -> None:
    """The other labels of a run tell its groups of ranks: golden differs between them."""
    goldens = [random(3, 8), random(3, 8)]
    logits = random(3, 8)
    for rank in range(4):
        group, part = divmod(rank, 2)
        run.label(rank, "pta", "x", goldens[group])
        run.label(rank, "acl", "x", np.split(goldens[group], 2, axis=1)[part])
        local = np.split(random(3, 8) if wrong else logits, 2, axis=1)[part]
        run.label(rank, "pta", "lm_head", logits)
        run.label(rank, "acl", "lm_head", local)
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.MATCH] * 4
    assert statuses(judgement, "lm_head") == [Status.DIVERGED if wrong else Status.MATCH] * 4
    assert judgement.exit_code == (1 if wrong else 0)


def test_a_transposed_pair_is_proved_on_the_values(run: Run) -> None:
    """Batch and sequence are exchanged in each layer; one layer is wrong, and one holds a constant."""
    for layer in range(4):
        golden = random(3, 7, 8)
        actual = golden.swapaxes(0, 1) * (2 if layer == 2 else 1)
        run.label(0, "pta", f"layers.{layer}.mlp", golden)
        run.label(0, "acl", f"layers.{layer}.mlp", actual)
    judgement = run.judged()
    found = [statuses(judgement, f"layers.{layer}.mlp") for layer in range(4)]
    assert found == [[Status.MATCH], [Status.MATCH], [Status.DIVERGED], [Status.MATCH]]
    assert layouts(judgement, "layers.1.mlp") == {"[7, 3, 8] transposed to [3, 7, 8], proved on the values"}


@pytest.mark.parametrize("constant", [False, True])
def test_a_transposition_without_proof_is_a_mismatch(run: Run, constant: bool) -> None:
    golden, actual = random(3, 7, 8), random(7, 3, 8)
    run.label(0, "pta", "x", np.ones_like(golden) if constant else golden)
    run.label(0, "acl", "x", np.ones_like(actual) if constant else actual)
    judgement = run.judged()
    assert statuses(judgement, "x") == [Status.MISMATCH]
    ((verdict,),) = (each.ranks for each in judgement.labels)
    assert "transposed to [3, 7, 8]" in verdict.reason


def test_the_values_tell_in_which_order_a_batch_was_merged(run: Run) -> None:
    for layer in range(3):
        golden = random(3, 7, 8)
        run.label(0, "pta", f"layers.{layer}.mlp", golden)
        run.label(0, "acl", f"layers.{layer}.mlp", golden.swapaxes(0, 1).reshape(21, 8))
        run.label(0, "pta", f"layers.{layer}.attn", golden)
        run.label(0, "acl", f"layers.{layer}.attn", golden.reshape(21, 8))
        run.label(0, "pta", f"layers.{layer}.ids", golden[0])
        run.label(0, "acl", f"layers.{layer}.ids", golden[0].T.reshape(-1))
    judgement = run.judged()
    assert all(verdict.status is Status.MATCH for label in judgement.labels for verdict in label.ranks)
    assert layouts(judgement, "layers.0.attn") == {"golden [3, 7, 8] as [21, 8]"}
    (words,) = layouts(judgement, "layers.0.mlp")
    assert "transposed" in words and "proved" in words


def test_a_shift_of_rows_is_not_explained_by_a_view(run: Run) -> None:
    for layer in range(3):
        golden = random(1, 9, 8)
        run.label(0, "pta", f"layers.{layer}.mlp", golden)
        run.label(0, "acl", f"layers.{layer}.mlp", np.roll(golden[0], 1, 0))
    judgement = run.judged()
    assert all(verdict.status is Status.DIVERGED for label in judgement.labels for verdict in label.ranks)
