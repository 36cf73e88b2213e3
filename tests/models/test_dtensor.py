"""torch's own tensor and sequence parallelism: DTensors as they are, and local tensors of modules that return those."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from aclcmp.orchestrator.errors import ExitCode
from tests.models.comparing import check_green, judge_runs, layouts
from tests.models.running import Ranks

pytestmark = pytest.mark.model

Made = Callable[..., Path]
LABELS = 30


@pytest.fixture(scope="module")
def made(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return the run of the model with these options; each is made once."""
    folder, names = tmp_path_factory.mktemp("runs"), itertools.count()
    runs: dict[tuple[str, ...], Path] = {}

    def make(*options: str, mesh: tuple[int, int] | None = None) -> Path:
        arguments = (*options, *(("--mesh", *map(str, mesh)) if mesh else ()))
        if arguments not in runs:
            count = mesh[0] * mesh[1] if mesh else 1
            runs[arguments] = ranks.run(folder / str(next(names)), "dtensor_ranks.py", *arguments, ranks=count)
        return runs[arguments]

    return make


@pytest.mark.parametrize("size", [2, 4])
def test_dtensors_match_one_process(made: Made, size: int) -> None:
    judgement = judge_runs(made(), made(mesh=(1, size)))
    check_green(judgement, LABELS)
    found = layouts(judgement)
    assert found["layers.1.attention_norm"] == found["layers.1.attention.wo"] == {"Shard(dim=1)"}
    assert found["layers.1.attention.wq"] == found["output"] == {"Shard(dim=2)"}
    assert found["layers.1.feed_forward.w2.summand"] == {f"Partial(sum) over {size} ranks"}


@pytest.mark.parametrize("local", [(), ("--local",), ("--local", "--untold")])
def test_slices_of_different_sizes(made: Made, local: tuple[str, ...]) -> None:
    """Three ranks share 208 words. (torch itself takes no tokens that it cannot share evenly.)"""
    judgement = judge_runs(made("--tokens", "18"), made("--tokens", "18", *local, mesh=(1, 3)))
    check_green(judgement, LABELS)
    assert {verdict.actual.shape[2] for verdict in judgement.labels[-1].ranks if verdict.actual} == {70, 68}


@pytest.mark.parametrize("told", [(), ("--untold",)])
def test_local_tensors_match_one_process(made: Made, told: tuple[str, ...]) -> None:
    judgement = judge_runs(made(), made("--local", *told, mesh=(1, 4)))
    check_green(judgement, LABELS)
    assert layouts(judgement)["layers.1.attention_norm"] == {"Shard(dim=1), inferred"}


def test_two_against_four_ranks(made: Made) -> None:
    check_green(judge_runs(made(mesh=(1, 2)), made("--local", "--untold", mesh=(1, 4))), LABELS)


@pytest.mark.parametrize("local", [(), ("--local", "--untold")])
def test_a_permuted_slice_is_named(made: Made, local: tuple[str, ...]) -> None:
    judgement = judge_runs(made(), made(*local, "--fault", "2", mesh=(1, 4)))
    first = judgement.first_divergence
    assert judgement.exit_code is ExitCode.DIVERGED and first is not None
    assert (first.key.label, first.ranks) == ("layers.1.feed_forward.w1", (2,))


def test_a_doubled_summand_is_found_before_it_is_reduced(made: Made) -> None:
    first = judge_runs(made(), made("--double", "2", mesh=(1, 4))).first_divergence
    assert first is not None and first.key.label == "layers.1.feed_forward.w2.summand"


def test_a_tensor_cut_over_both_dimensions_of_a_mesh(made: Made) -> None:
    judgement = judge_runs(made("--both"), made("--both", mesh=(2, 2)))
    check_green(judgement, 1)
    assert layouts(judgement) == {"both.logits": {"Shard(dim=0), Shard(dim=2)"}}


@pytest.mark.parametrize("local", [(), ("--local",), ("--local", "--untold")])
def test_data_parallel_groups_each_beside_their_golden(made: Made, local: tuple[str, ...]) -> None:
    """Two groups of two tensor-parallel ranks with different prompts, in one run."""
    judgement = judge_runs(made("--beside", *local, mesh=(2, 2)))
    check_green(judgement, LABELS)
    faulty = judge_runs(made("--beside", *local, "--fault", "3", mesh=(2, 2))).first_divergence
    assert faulty is not None and (faulty.key.label, faulty.ranks) == ("layers.1.feed_forward.w1", (3,))
