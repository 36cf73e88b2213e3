"""transformers' own tensor, expert and data parallelism against one process, each a run of its own."""

import pytest

from aclcmp.orchestrator.core.verdicts import Origin, Status
from aclcmp.orchestrator.errors import ExitCode
from tests.models.comparing import check_green, judge_runs, layouts, statuses
from tests.models.running import Made, Ranks, run_maker

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def made(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return the run of a model with these options on so many ranks; each is made once."""
    return run_maker(ranks, tmp_path_factory.mktemp("runs"), "transformers_ranks.py")


@pytest.mark.parametrize("size", [2, 4, 8])
def test_tensor_parallel_ranks_match_one_process(made: Made, size: int) -> None:
    """By the layouts that watch takes from the model's plan; the rest is inferred."""
    judgement = judge_runs(made("golden"), made(f"actual --tp {size}", size))
    check_green(judgement, 2 * 45)
    assert judgement.coverage.compared == size * len(judgement.labels)
    (layout,) = layouts(judgement)["model.layers.1.self_attn.q_proj"]
    assert layout.startswith("Shard(dim=-1)")


@pytest.mark.parametrize("size", [2, 4, 8])
def test_without_a_single_annotation(made: Made, size: int) -> None:
    judgement = judge_runs(made("golden"), made(f"actual --untold --tp {size}", size))
    check_green(judgement, 2 * 45)
    (layout,) = layouts(judgement)["model.layers.1.self_attn.q_proj"]
    assert layout.startswith("Shard(dim=2), inferred")


@pytest.mark.parametrize("size", [1, 2])
def test_eight_ranks_match_a_golden_run_of_another_size(made: Made, size: int) -> None:
    judgement = judge_runs(made(f"golden --untold --tp {size}", size), made("actual --untold --tp 8", 8))
    check_green(judgement, 2 * 45)
    assert judgement.coverage.compared == 8 * len(judgement.labels)


@pytest.mark.parametrize("size", [1, 2])
def test_tokens_one_after_the_other(made: Made, size: int) -> None:
    """A prompt and two steps with a cache: three calls of each module."""
    golden = made(f"golden --untold --tasks 1 --steps 2 --tp {size}", size)
    check_green(judge_runs(golden, made("actual --untold --tasks 1 --steps 2 --tp 8", 8)), 3 * 45)


def test_a_golden_run_on_more_ranks_than_the_actual_one(made: Made) -> None:
    judgement = judge_runs(made("golden --untold --tp 8", 8), made("actual"))
    check_green(judgement, 2 * 45)
    assert judgement.coverage.compared == len(judgement.labels)


def test_bfloat16_against_float32(made: Made) -> None:
    """Round-off hides no layout."""
    judgement = judge_runs(made("golden"), made("actual --untold --tp 4 --dtype bfloat16", 4))
    assert judgement.exit_code is ExitCode.MATCH, judgement.first_divergence
    assert set(statuses(judgement).values()) <= {Status.MATCH, Status.DRIFT}
    assert layouts(judgement)["model.layers.2.self_attn.q_proj"] == {"Shard(dim=2), inferred"}


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("told", ["--untold", ""])
def test_a_permuted_slice_is_named_as_its_ranks(made: Made, size: int, told: str) -> None:
    judgement = judge_runs(made(f"golden {told} --tp {size}", size), made(f"actual {told} --tp 8 --fault 1 5", 8))
    first = judgement.first_divergence
    assert judgement.exit_code is ExitCode.DIVERGED and first is not None
    assert (first.key.label, first.key.task, first.ranks) == ("model.layers.1.self_attn.q_proj", 0, (5,))
    assert first.origin is Origin.OWN and "transformers" in first.call_site
    names = [label.key.label for label in judgement.labels]
    before = judgement.labels[: names.index(first.key.label)]
    assert {label.status for label in before} == {Status.MATCH} and len(before) == 17
    verdicts = next(label for label in judgement.labels if label.key == first.key).ranks
    assert [verdict.status for verdict in verdicts if verdict.rank != 5] == [Status.MATCH] * 7


@pytest.mark.parametrize("tokens", [8, 16])
@pytest.mark.parametrize("size", [1, 2])
def test_shapes_that_allow_several_layouts_are_settled_by_values(made: Made, size: int, tokens: int) -> None:
    """As many tokens as ranks, or as heads: dimensions can be taken for each other."""
    golden = made(f"golden --untold --tokens {tokens} --tp {size} --architecture qwen3", size)
    check_green(judge_runs(golden, made(f"actual --untold --tokens {tokens} --tp 8 --architecture qwen3", 8)), 2 * 45)


@pytest.mark.parametrize("told", ["--untold", ""])
@pytest.mark.parametrize("architecture", ["glm", "mixtral"])
def test_other_architectures(made: Made, architecture: str, told: str) -> None:
    """GLM fuses its gate with the projection beside it, Mixtral has experts."""
    golden = made(f"golden --architecture {architecture}")
    check_green(judge_runs(golden, made(f"actual {told} --tp 4 --architecture {architecture}", 4)), 2 * 42)


def test_expert_parallel_ranks_match_but_within_their_experts(made: Made) -> None:
    """What an activation function sees are the tokens of one expert after the other: of no rank's is golden's."""
    judgement = judge_runs(
        made("golden --architecture mixtral"), made("actual --untold --tp 4 --ep 4 --architecture mixtral", 4)
    )
    found = statuses(judgement)
    within = {f"model.layers.{layer}.mlp.experts.act_fn" for layer in range(3)}
    assert {name for name, status in found.items() if status is not Status.MATCH} == within
    assert found["model.layers.2.mlp.experts"] is Status.MATCH


@pytest.mark.parametrize("told", ["--untold", ""])
def test_data_parallel_groups_make_up_the_batch(made: Made, told: str) -> None:
    """FSDP over two groups of two tensor-parallel ranks: each group has half the prompts of golden's batch."""
    judgement = judge_runs(made("golden --dp 2"), made(f"actual {told} --tp 2 --dp 2", 4))
    check_green(judgement, 2 * 45)


@pytest.mark.parametrize("told", ["--untold", ""])
@pytest.mark.parametrize(("golden", "count"), [("--dp 2", 2), ("--dp 2 --tp 2", 4)])
def test_data_parallel_groups_of_two_runs_find_each_other(made: Made, golden: str, count: int, told: str) -> None:
    """Two groups of one or two ranks against two groups of four."""
    judgement = judge_runs(made(f"golden {told} {golden}", count), made(f"actual {told} --dp 2 --tp 4", 8))
    check_green(judgement, 2 * 45)


@pytest.mark.parametrize("told", ["--untold", ""])
def test_data_parallel_groups_each_beside_a_golden_of_their_own(made: Made, told: str) -> None:
    """One run: golden and actual of the group's own prompts on each rank."""
    judgement = judge_runs(made(f"actual {told} --tp 2 --dp 2 --beside", 4))
    check_green(judgement, 2 * 45)
    assert judgement.coverage.compared == 4 * len(judgement.labels)


def test_a_fault_in_a_weight_that_data_parallel_groups_share(made: Made) -> None:
    """FSDP keeps a half of each tensor-parallel slice on each of two ranks: what is wrong on rank 2 reaches rank 0."""
    judgement = judge_runs(made("actual --untold --tp 2 --dp 2 --beside --fault 1 2", 4))
    first = judgement.first_divergence
    assert first is not None and (first.key.label, first.ranks) == ("model.layers.1.self_attn.q_proj", (0, 2))
