"""Two pipeline stages of two tensor-parallel ranks each, of which every one labels its own layers only."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.errors import ExitCode
from tests.models.comparing import check_green, judge_runs, reasons, statuses
from tests.models.running import Ranks

pytestmark = pytest.mark.model

SCRIPT, CUT = "transformers_ranks.py", ("--layers", "4", "--pp", "2", "--tp", "2")


@pytest.fixture(scope="module")
def golden(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranks.run(tmp_path_factory.mktemp("golden") / "run", SCRIPT, "golden", "--layers", "4")


@pytest.mark.parametrize("told", [["--untold"], []])
def test_stages_match_one_process(ranks: Ranks, golden: Path, tmp_path: Path, told: list[str]) -> None:
    judgement = judge_runs(golden, ranks.run(tmp_path / "run", SCRIPT, "actual", *CUT, *told, ranks=4))
    check_green(judgement, 2 * 59)
    where = {label.key.label: [verdict.rank for verdict in label.ranks] for label in judgement.labels}
    assert where["model.embed_tokens"] == where["model.layers.1.mlp.down_proj"] == [0, 1]
    assert where["model.layers.2.self_attn.q_proj"] == where["model.norm"] == [2, 3]
    assert where["forward.logits"] == [0, 1, 2, 3]


def test_stages_are_golden_for_ranks_without_any(ranks: Ranks, tmp_path: Path) -> None:
    golden = ranks.run(tmp_path / "golden", SCRIPT, "golden", *CUT, "--untold", ranks=4)
    actual = ranks.run(tmp_path / "actual", SCRIPT, "actual", "--layers", "4", "--tp", "4", "--untold", ranks=4)
    check_green(judge_runs(golden, actual), 2 * 59)
    check_green(judge_runs(actual, golden), 2 * 59)


@pytest.mark.parametrize("told", [["--untold"], []])
def test_a_fault_in_the_second_stage_is_named(ranks: Ranks, golden: Path, tmp_path: Path, told: list[str]) -> None:
    judgement = judge_runs(
        golden, ranks.run(tmp_path / "run", SCRIPT, "actual", *CUT, *told, "--fault", "3", "2", ranks=4)
    )
    first = judgement.first_divergence
    assert judgement.exit_code is ExitCode.DIVERGED and first is not None
    assert (first.key.label, first.ranks) == ("model.layers.3.self_attn.q_proj", (2,))
    wrong = {verdict.rank for label in judgement.labels for verdict in label.ranks if verdict.status is Status.DIVERGED}
    assert wrong == {0, 1, 2, 3}  # the logits are sent back to the first stage


@pytest.mark.parametrize("told", [["--untold"], []])
def test_a_stage_that_labels_nothing_is_missing(ranks: Ranks, golden: Path, tmp_path: Path, told: list[str]) -> None:
    judgement = judge_runs(golden, ranks.run(tmp_path / "run", SCRIPT, "actual", *CUT, *told, "--silent", "1", ranks=4))
    assert judgement.exit_code is ExitCode.INCOMPLETE and judgement.first_divergence is None
    assert judgement.coverage.silent_ranks == (2, 3)
    found = statuses(judgement)
    assert found["model.layers.1.self_attn.q_proj"] is Status.MATCH
    for name in ("model.layers.2.self_attn.q_proj", "model.layers.3", "lm_head"):
        assert found[name] is Status.MISSING
        assert any("no actual (acl) side" in reason for reason in reasons(judgement, name))
