"""A decoder cut by hand, with told layouts of every kind and without any, against the plain one."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.inputs.layout_file import read_layouts
from aclcmp.orchestrator.plan.layouts.interpretations import UNPROVED
from tests.models.comparing import check_green, judge_runs, layouts
from tests.models.running import Ranks

pytestmark = pytest.mark.model

Made = Callable[..., Path]
DENSE, SPARSE = 24, 22
"""Labels of a decoder without and with experts."""
INFERABLE = "embed layers.? *.norm *.keys *.mixed *.out *.attn *.act"
"""What is whole, or a plain slice: neither fused nor a summand."""
INFERRED = 13
"""So many labels."""


@pytest.fixture(scope="module")
def made(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return the run of the decoder with these options; each is made once."""
    folder, names = tmp_path_factory.mktemp("runs"), itertools.count()
    runs: dict[tuple[str, ...], Path] = {}

    def make(*options: str, mesh: tuple[int, int, int] | None = None) -> Path:
        arguments = (*options, *(("--mesh", *map(str, mesh)) if mesh else ()))
        if arguments not in runs:
            count = mesh[0] * mesh[1] * mesh[2] if mesh else 1
            runs[arguments] = ranks.run(folder / str(next(names)), "decoder_ranks.py", *arguments, ranks=count)
        return runs[arguments]

    return make


def first_wrong(judgement: Judgement) -> tuple[str, tuple[int, ...]]:
    assert judgement.exit_code is ExitCode.DIVERGED and judgement.first_divergence is not None
    names = [label.key.label for label in judgement.labels]
    before = judgement.labels[: names.index(judgement.first_divergence.key.label)]
    assert {label.status for label in before} == {Status.MATCH}
    return judgement.first_divergence.key.label, judgement.first_divergence.ranks


@pytest.mark.parametrize("mesh", [(1, 1, 4), (1, 4, 1), (2, 1, 2), (2, 2, 2)])
def test_told_layouts_match_one_process(made: Made, mesh: tuple[int, int, int]) -> None:
    """Batch, zigzag sequence, fused projections, padded vocabulary and sums, over up to eight ranks."""
    judgement = judge_runs(made(), made(mesh=mesh))
    check_green(judgement, DENSE)
    found = layouts(judgement)
    cut = "Shard(dim=0), Shard(dim=1, zigzag=True), "
    size = mesh[2]
    assert found["layers.1.qkv"] == {f"{cut}Shard(dim=2, parts=({64 // size}, {32 // size}, {32 // size}))"}
    assert found["layers.1.gate_up"] == {f"{cut}Shard(dim=2, parts=(96, 96))"}
    assert found["logits"] == {f"{cut}Shard(dim=2, size=203)"}
    assert {each.startswith(f"{cut}Partial(sum)") for each in found["layers.1.out.summand"]} == {True}


@pytest.mark.parametrize("golden", [(1, 1, 4), (1, 4, 1), (2, 1, 2), (1, 2, 4), (2, 2, 2)])
def test_any_cut_against_any_other(made: Made, golden: tuple[int, int, int]) -> None:
    """Where the two are cut in other ways no rank holds a box that a rank of the other run holds."""
    for actual in ((1, 1, 4), (1, 4, 1), (2, 1, 2), (1, 2, 4), (2, 2, 2)):
        if actual != golden:
            check_green(judge_runs(made(mesh=golden), made(mesh=actual)), DENSE)


@pytest.mark.parametrize(
    ("place", "rank", "named"),
    [
        ("layers.1.qkv", 5, (5,)),
        ("layers.0.gate_up", 3, (3,)),
        ("layers.1.attn", 6, (6,)),
        ("logits", 7, (7,)),
        ("layers.1.out.summand", 7, (6, 7)),  # their sum does not tell which of them
    ],
)
def test_a_fault_is_named_as_its_ranks(made: Made, place: str, rank: int, named: tuple[int, ...]) -> None:
    judgement = judge_runs(made(), made("--fault", place, "--rank", str(rank), mesh=(2, 2, 2)))
    assert first_wrong(judgement) == (place, named)


@pytest.mark.parametrize("mesh", [(1, 1, 4), (2, 1, 2)])
def test_experts_add_up(made: Made, mesh: tuple[int, int, int]) -> None:
    """Expert parallel: each rank's experts give a summand."""
    judgement = judge_runs(made("--experts"), made("--experts", mesh=mesh))
    check_green(judgement, SPARSE)
    assert {each.split("Partial")[1][:5] for each in layouts(judgement)["layers.0.experts"]} == {"(sum)"}
    doubled = made("--experts", "--fault", "layers.1.experts", "--how", "double", "--rank", "3", mesh=mesh)
    name, named = first_wrong(judge_runs(made("--experts"), doubled))
    assert name == "layers.1.experts" and named == ((0, 1, 2, 3) if mesh[2] == 4 else (2, 3))


def test_fused_projections_without_a_word_are_proved_on_the_values(made: Made) -> None:
    """Golden's are side by side too, but in other places: shapes say plain slices, which no value agrees with."""
    judgement = judge_runs(made(), made("--untold", "*.qkv *.gate_up", mesh=(1, 1, 4)))
    check_green(judgement, DENSE)
    found = layouts(judgement)
    assert found["layers.0.qkv"] == {"Shard(dim=2, parts=(16, 8, 8)), proved on the values"}
    assert found["layers.1.gate_up"] == {"Shard(dim=2, parts=(24, 24)), proved on the values"}
    faulty = made("--untold", "*.qkv *.gate_up", "--fault", "layers.0.qkv", "--rank", "2", mesh=(1, 1, 4))
    assert first_wrong(judge_runs(made(), faulty)) == ("layers.0.qkv", (2,))


def test_what_is_wrong_by_every_reading_says_that_it_is_one_of_several(made: Made) -> None:
    """Zigzag sequences of slices, and fused slices of batches: no reading that shapes allow holds, and none is sure."""
    for mesh in ((1, 2, 2), (2, 1, 2)):
        judgement = judge_runs(made(), made("--untold", "*", mesh=mesh))
        assert judgement.exit_code is ExitCode.DIVERGED
        for label in judgement.labels:
            if label.key.label == "logits":
                assert label.status is Status.MISMATCH
            elif label.status is not Status.MATCH:
                assert label.status is Status.DIVERGED
                assert all(verdict.layout.endswith(UNPROVED) for verdict in label.ranks)


def test_what_is_told_is_not_overridden_by_what_fits_better(made: Made, tmp_path: Path) -> None:
    (tmp_path / "layouts.txt").write_text("layers.*.qkv -> Shard(dim=-1)\n")
    judgement = judge_runs(made(), made(mesh=(1, 1, 4)), rules=read_layouts(tmp_path / "layouts.txt"))
    assert first_wrong(judgement) == ("layers.0.qkv", (0, 1, 2, 3))
    assert layouts(judgement)["layers.0.qkv"] == {"Shard(dim=-1)"}


def test_a_file_tells_the_layouts_afterwards(made: Made, tmp_path: Path) -> None:
    (tmp_path / "layouts.txt").write_text(
        "actual layers.*.qkv -> Shard(dim=-1, parts=(16, 8, 8))\n"
        "layers.*.gate_up -> Shard(dim=2, parts=(96, 96))  # of the whole\n"
        "layers.*.*.summand -> Partial()\n"
        "logits -> Shard(dim=2, size=203)\n"
    )
    judgement = judge_runs(made(), made("--untold", "*", mesh=(1, 1, 4)), rules=read_layouts(tmp_path / "layouts.txt"))
    check_green(judgement, DENSE)
    found = layouts(judgement)
    assert found["layers.0.qkv"] == {"Shard(dim=-1, parts=(16, 8, 8))"}
    assert found["layers.1.down.summand"] == {"Partial(sum) over 4 ranks"}


@pytest.mark.parametrize("mesh", [(1, 1, 4), (1, 2, 1), (1, 4, 1), (2, 1, 1), (2, 1, 2)])
def test_layouts_are_inferred(made: Made, mesh: tuple[int, int, int]) -> None:
    """Slices of columns with a padded vocabulary, zigzag sequences, batches, and batches of slices."""
    only = ("--only", INFERABLE if mesh == (2, 1, 2) else f"{INFERABLE} logits")
    judgement = judge_runs(made(*only), made(*only, "--untold", "*", mesh=mesh))
    check_green(judgement, INFERRED)
    found = layouts(judgement)["layers.1.mixed"]
    wanted = {
        (1, 1, 4): "Shard(dim=2), inferred",
        (1, 2, 1): "Shard(dim=1, zigzag=True), proved on the values",
        (1, 4, 1): "Shard(dim=1, zigzag=True), proved on the values",
        (2, 1, 1): "Shard(dim=0), inferred",
        (2, 1, 2): "Shard(dim=0), Shard(dim=2), proved on the values",
    }
    assert found == {wanted[mesh]}


@pytest.mark.parametrize("told", [(), ("--untold", "*")])
def test_ranks_that_share_a_key_value_head(made: Made, told: tuple[str, ...]) -> None:
    """Eight ranks, four heads: slices and replicas of them."""
    only = ("--only", f"{INFERABLE} logits")
    judgement = judge_runs(made(*only), made(*only, *told, mesh=(1, 1, 8)))
    check_green(judgement, INFERRED)
    (layout,) = layouts(judgement)["layers.1.keys"]
    assert layout.removesuffix(", proved on the values").endswith("Shard(dim=2), Replicate()")
    faulty = judge_runs(made(*only), made(*only, *told, "--fault", "layers.1.keys", "--rank", "5", mesh=(1, 1, 8)))
    assert first_wrong(faulty) == ("layers.1.keys", (5,))


@pytest.mark.parametrize("mesh", [(1, 1, 4), (1, 4, 1), (2, 1, 2)])
def test_a_fault_is_named_where_layouts_are_inferred(made: Made, mesh: tuple[int, int, int]) -> None:
    only = ("--only", INFERABLE)
    faulty = made(*only, "--untold", "*", "--fault", "layers.1.mixed", "--rank", "3", mesh=mesh)
    assert first_wrong(judge_runs(made(*only), faulty)) == ("layers.1.mixed", (3,))


@pytest.mark.parametrize(
    ("mesh", "place", "how", "wrong"),
    [
        ((1, 1, 4), "layers.1.act", "neighbours", (2, 3)),
        ((1, 1, 4), "layers.1.act", "neighbours", (0, 1, 2, 3)),
        ((1, 1, 4), "layers.0.gate_up", "halves", (0, 1, 2, 3)),  # the two projections in the other order
        ((1, 1, 4), "layers.0.mixed", "halves", (0, 1, 2, 3)),
        ((1, 2, 1), "layers.0.mixed", "neighbours", (0, 1)),
        ((1, 4, 1), "layers.1.mixed", "chunks", (2,)),
        ((1, 4, 1), "layers.1.mixed", "columns", (0, 1, 2, 3)),
    ],
)
def test_no_layout_is_found_that_explains_a_fault_away(
    made: Made, mesh: tuple[int, int, int], place: str, how: str, wrong: tuple[int, ...]
) -> None:
    only = ("--only", f"{INFERABLE} logits *.qkv *.gate_up")
    told = ("--untold", "*", "--fault", place, "--how", how, "--rank", *map(str, wrong))
    assert first_wrong(judge_runs(made(*only), made(*only, *told, mesh=mesh))) == (place, wrong)


@pytest.mark.parametrize("mesh", [(2, 1, 2), (2, 2, 2)])
def test_each_data_parallel_group_beside_its_own_golden(made: Made, mesh: tuple[int, int, int]) -> None:
    """One run whose groups work on different data, told."""
    judgement = judge_runs(made("--beside", mesh=mesh))
    check_green(judgement, DENSE)
    place, rank = "layers.0.act", mesh[0] * mesh[1] * mesh[2] - 1
    assert first_wrong(judge_runs(made("--beside", "--fault", place, "--rank", str(rank), mesh=mesh))) == (
        place,
        (rank,),
    )


def test_data_parallel_groups_are_inferred(made: Made) -> None:
    only = ("--only", INFERABLE, "--beside", "--untold", "*")
    judgement = judge_runs(made(*only, mesh=(2, 1, 2)))
    check_green(judgement, INFERRED)
    assert layouts(judgement)["layers.1.act"] == {"Shard(dim=2) in 2 groups of ranks, inferred"}
    faulty = made(*only, "--fault", "layers.1.act", "--rank", "2", mesh=(2, 1, 2))
    assert first_wrong(judge_runs(faulty)) == ("layers.1.act", (2,))


def test_replicas_are_held_against_each_other_without_golden(made: Made) -> None:
    judgement = judge_runs(made("--fault", "layers.0.attn", "--rank", "2", mesh=(1, 1, 4)))
    (first, *_) = judgement.replicas
    assert (first.key.label, first.side, first.odd, first.agreeing) == ("layers.0.attn", "actual", (2,), (0, 1, 3))
    assert first.declared and first.rel_l2 > 0.5
    assert judge_runs(made(mesh=(1, 1, 4))).replicas == ()
