"""Layouts that cannot be: nothing is compared, and the message says what is wrong, on which ranks, of which shapes."""

import re
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.errors import ExitCode
from tests.models.comparing import judge_runs, reasons, statuses
from tests.models.running import Ranks

pytestmark = pytest.mark.model

MISMATCHED = {
    "no such dimension": r"Shard\(dim=2\).*\[4, 8\] on ranks 0, 1, 2, 3: no such dimension",
    "no such dimension from the end": r"Shard\(dim=-3\).*\[4, 8\] on ranks 0, 1, 2, 3: no such dimension",
    "parts that do not add up": r"\(4, 3\), which add up to 7: neither to the 8 .* nor to the 32 .*\[4, 8\] on ranks 0",
    "parts that cannot be shared": r"parts=\(30, 2\) .*4 ranks cannot share evenly; \[4, 8\] on ranks 0, 1, 2, 3",
    "overlapping ranks": r"overlap: .*ranks 1, 2, 3.* ranks 0, 1; \[4, 8\] on ranks 0, 1, 2, 3",
    "without itself": r"rank 3 names ranks 0, 1, 2, without rank 3.*\[4, 8\]",
    "ranks in two orders": r"ranks 3, 2, 1, 0.* ranks 0, 1, 2, 3.*\[4, 8\]",
    "two minds": r"different layouts: Replicate\(\) for \[4, 8\] on rank 0, Shard\(dim=1\) for \[4, 8\] on rank 1",
    "other sizes beside": r"dimension 0 is not cut, but sizes differ; \[4, 8\] on ranks 0, 1, 3; \[3, 8\] on rank 2",
    "slices told replicas": r"Replicate\(\): .*sizes differ; \[1, 32\] on rank 0; \[2, 32\] on rank 1",
    "summands of two shapes": r"Partial\(sum\): .*sizes differ; \[3, 32\] on ranks 0, 2, 3; \[4, 32\] on rank 1",
    "odd in zigzag": r"zigzag order, for which local sizes must be even; \[4, 7\] on ranks 0, 1, 2, 3",
    "larger than all": r"size=33, but the slices add up to 32; \[4, 8\] on ranks 0, 1, 2, 3",
    "too small a whole": r"golden has shape \[4, 32\] .*\[4, 8\] on ranks 0, 1, 2, 3 with layout Shard\(dim=0\)",
    "grid with a rank in two rows": r"(overlap|without rank 1).*\[1, 16\]",
    "a summand is missing": r"the summand of rank 3 is missing.*\[4, 32\]",
}
FAILED = {
    "no layout": r"'Shard\(1\)' is not known; use Shard\(dim\), Replicate\(\) or Partial\(\)",
    "parts and padding": r"only one of parts, zigzag and size",
    "twice a rank": r"\(0, 1, 2, 2\).*each once",
    "a mesh without ranks": r"each needs the ranks that it goes over: Shard\(dim=0, ranks=...\)",
    "negative parts": r"parts=\(-1, 9\).*none negative",
}


@pytest.fixture(scope="module")
def judged(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Judgement, str]:
    """The judgement, and what rank 0 said while it labelled."""
    folder = ranks.run(tmp_path_factory.mktemp("wrong") / "run", "wrong_ranks.py", ranks=4, strict=False)
    return judge_runs(folder), (folder / "logs" / "rank00000.log").read_text()


def test_nothing_wrong_is_compared_and_what_is_right_is(judged: tuple[Judgement, str]) -> None:
    judgement, _ = judged
    assert judgement.exit_code is ExitCode.INCOMPLETE and judgement.first_divergence is None
    wanted = dict.fromkeys(MISMATCHED, Status.MISMATCH) | dict.fromkeys(FAILED, Status.FAILED)
    assert statuses(judgement) == wanted | {"good": Status.MATCH, "a rank is missing": Status.MISSING}


@pytest.mark.parametrize("name", MISMATCHED)
def test_a_mismatch_says_what_on_which_ranks_of_which_shapes(judged: tuple[Judgement, str], name: str) -> None:
    for reason in reasons(judged[0], name):
        assert re.search(MISMATCHED[name], reason) and "\n" not in reason, reason


@pytest.mark.parametrize("name", FAILED)
def test_what_is_impossible_fails_where_it_is_labelled(judged: tuple[Judgement, str], name: str) -> None:
    (reason,) = reasons(judged[0], name)
    assert re.search(FAILED[name], reason), reason
    line = next(line for line in judged[1].splitlines() if f"label '{name}' (acl)" in line)
    assert "wrong_ranks.py:" in line and re.search(FAILED[name], line)


def test_a_missing_rank_leaves_its_slice_out(judged: tuple[Judgement, str]) -> None:
    (label,) = (label for label in judged[0].labels if label.key.label == "a rank is missing")
    assert [verdict.status for verdict in label.ranks] == [Status.MATCH] * 3 + [Status.MISSING]
    assert label.ranks[3].reason == "this rank did not label its slice of the whole"


def test_the_same_between_two_runs(ranks: Ranks, judged: tuple[Judgement, str], tmp_path: Path) -> None:
    """Golden of another run: ranks of the two do not correspond, the messages are the same."""
    golden = ranks.run(tmp_path / "golden", "wrong_ranks.py", ranks=1, strict=False)
    actual = ranks.run(tmp_path / "actual", "wrong_ranks.py", ranks=4, strict=False)
    judgement = judge_runs(golden, actual)
    assert judgement.exit_code is ExitCode.INCOMPLETE
    found = statuses(judgement)
    assert found["good"] is Status.MATCH
    for name, words in MISMATCHED.items():
        assert found[name] is Status.MISMATCH
        for reason in reasons(judgement, name):
            assert re.search(words, reason), reason
