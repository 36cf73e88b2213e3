"""Tokens that logits choose, through real shards: told as ties or wrong ones, in every form of the report."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from aclcmp.labeling.layout import Placement, Shard
from aclcmp.labeling.recorder import Recorder
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.tokens import TokenState, TokenVerdicts
from aclcmp.orchestrator.core.verdicts import Judgement, Status
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.judge.collect_evidence import collect_evidence
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.token_verdicts import collect_tokens
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.pipeline.stored_reports import evidence_of_report, read_stored_report
from aclcmp.orchestrator.plan.noise_plans import plan_reference
from aclcmp.orchestrator.plan.planner import plan_run
from aclcmp.orchestrator.report.as_json import schema
from aclcmp.orchestrator.run.directory import RunDir
from tests.models.comparing import compare_pairs
from tests.processes import PATIENCE
from tests.recorded import read_report, record_run, recorder_of

Array = npt.NDArray[np.float32]
VOCABULARY = 60
NOISE = 2e-5
"""Standard deviation of the noise in golden's logits."""
FAR, CLOSE = 3.0, 2e-5
"""Margins of golden that no noise explains, and that any does."""
HIDDEN = 5e-3
"""A shift that no noise explains, in one logit, which the error of its row does not show."""


class Text:
    """The logits of requests, one row for each token."""

    def __init__(self, sizes: list[int], seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.sizes = sizes
        self.tokens = [random.integers(VOCABULARY, size=size).tolist() for size in sizes]
        self.golden = [random.normal(size=(size, VOCABULARY)).astype(np.float32) for size in sizes]
        for rows in self.golden:  # a clear choice
            rows[np.arange(len(rows)), random.integers(VOCABULARY, size=len(rows))] = 9.0
        self.actual, self.reference = (
            [rows + random.normal(scale=NOISE, size=rows.shape).astype(np.float32) for rows in self.golden]
            for _ in range(2)
        )

    def flip(self, request: int, row: int, margin: float, shift: float) -> tuple[int, int]:
        """Let golden prefer a token by a margin, and actual another that it has moved so far; return both."""
        golden, actual = self.golden[request][row], self.actual[request][row]
        best = int(golden.argmax())
        other = (best + 7) % VOCABULARY
        for side in (golden, self.reference[request][row], actual):
            side[other] = golden[best] - margin
            side[best] = golden[best]
        actual[other] = golden[best] - margin + shift
        return best, other

    def rows(self, parts: list[tuple[int, int, int]], prompt: int = 0) -> Rows:
        """Return the names of rows of parts: (request, begin, end)."""
        places = [(request, at) for request, begin, end in parts for at in range(begin, end)]
        prompts = {f"r{number}": tokens[:prompt] for number, tokens in enumerate(self.tokens)}
        return Rows(
            [f"r{request}" for request, _ in places],
            [at for _, at in places],
            [self.tokens[request][at] for request, at in places],
            prompts=prompts if prompt else {},
        )

    def record(self, folder: Path, steps: list[list[tuple[int, int, int]]], ranks: int = 1, prompt: int = 0) -> None:
        """Record golden and reference on rank 0, a request at a time, and actual on all ranks, each its tokens."""
        width = VOCABULARY // ranks
        for rank in range(ranks):
            with closing(recorder_of(folder, rank, ranks, strict=True)) as recorder:
                if not rank:
                    for side, values in (("pta", self.golden), ("ref", self.reference)):
                        for request, rows in enumerate(values):
                            set_rows(recorder, side, rows, self.rows([(request, 0, len(rows))]))
                for step in steps:
                    value = np.concatenate([self.actual[request][begin:end] for request, begin, end in step])
                    part = np.ascontiguousarray(value[:, rank * width : (rank + 1) * width])
                    layout = Shard(-1) if ranks > 1 else None
                    set_rows(recorder, "acl", part, self.rows(step, prompt), layout)


def set_rows(recorder: Recorder, side: str, value: Array, rows: Rows, layout: Placement | None = None) -> None:
    recorder.record(side, "lm_head", value, None, layout, "", None, "f.py:1", rows)


@contextmanager
def closing(recorder: Recorder) -> Iterator[Recorder]:
    try:
        yield recorder
    finally:
        recorder.close()


def judge(folder: Path, ranks: int, *, reference: bool = True) -> Judgement:
    indices = [read_shard(files) for files in shards_in(folder)]
    resolved = compare_and_resolve(plan_run(indices, ranks), compare_pairs)
    floor = plan_reference(indices, ranks)
    assert floor is not None
    floors = [(FloorSource.REFERENCE, floor, compare_pairs(floor.pairs))] if reference else []
    tokens = collect_tokens(resolved.plan, resolved.outcomes, floors)
    evidence = collect_evidence(resolved.plan, resolved.outcomes, run_failed=False)
    return judge_evidence(replace(evidence, tokens=tokens))


def states_of(tokens: TokenVerdicts) -> dict[tuple[str, int], TokenState]:
    return {(token.request, token.position): state for token, state, _ in tokens}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_every_token_is_told_however_it_is_sharded(data: st.DataObject) -> None:
    text = Text(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)), data.draw(st.integers(0, 1000)))
    ranks = data.draw(st.sampled_from([1, 2, 3, 5]))
    places = [(request, row) for request, size in enumerate(text.sizes) for row in range(size)]
    planted = data.draw(
        st.dictionaries(st.sampled_from(places), st.sampled_from(["tie", "wrong", "hidden"]), max_size=4)
    )
    for (request, row), kind in planted.items():
        margin, shift = {"tie": (CLOSE, 2 * CLOSE), "wrong": (FAR, FAR + 1.0), "hidden": (CLOSE, HIDDEN)}[kind]
        text.flip(request, row, margin, shift)
    steps = [[(request, row, row + 1)] for request, row in data.draw(st.permutations(places))]
    if len(steps) > 2 and steps[0][0][0] != steps[1][0][0]:
        steps = [steps[0] + steps[1], *steps[2:]]
    with tempfile.TemporaryDirectory() as folder:
        text.record(Path(folder), steps, ranks)
        judgement = judge(Path(folder), ranks)
    (label,) = judgement.labels
    whole = {
        (f"r{request}", row + 1): TokenState("tie" if planted[request, row] == "tie" else "wrong")
        if (request, row) in planted
        else TokenState.SAME
        for request, row in places
    }
    (tokens,) = judgement.tokens
    assert states_of(tokens) == whole and tokens.evidence.ranks == list(range(ranks))
    wrong = TokenState.WRONG in whole.values()
    assert (label.status is Status.DIVERGED) == wrong
    assert (judgement.exit_code is ExitCode.DIVERGED) == wrong


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """A run on two ranks that hold half of the vocabulary each, compared: a tie, a hidden wrong token, and neither."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "run", "run")
    run.shards.mkdir(parents=True)
    run.logs.mkdir()
    text = Text([6, 5, 4])
    tie, wrong = text.flip(0, 2, CLOSE, 2 * CLOSE), text.flip(1, 3, CLOSE, HIDDEN)
    text.record(run.shards, [[(0, 0, 4), (2, 0, 4)], [(1, 0, 5), (0, 4, 6)]], ranks=2, prompt=2)
    with closing(recorder_of(run.shards, 2, 3)) as recorder:
        recorder.name_tokens({tie[0]: " a", tie[1]: "\n\x1b[31m", wrong[0]: "x", wrong[1]: "x"})
    record_run(run, "engine.py", 3)
    done = aclcmp("compare", str(run.root))
    return run.root, done.stdout, done.returncode


def aclcmp(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "aclcmp", *arguments], capture_output=True, text=True, timeout=PATIENCE
    )


def of_requests(folder: Path) -> dict[str, list[dict[str, Any]]]:
    (tokens,) = read_report(folder)["tokens"]
    return {request["request"]: request["tokens"] for request in tokens["requests"]}


def test_the_terminal_names_each_parting(parted: tuple[Path, str, int]) -> None:
    folder, printed, _ = parted
    wrong = of_requests(folder)["r1"][3]
    tie = r"Request r0 parts at token 3: '\\n\\x1b\[31m' instead of ' a', margin \S+e-05, noise 0\.0001\d*: a tie\.\n"
    assert re.search(tie, printed)
    assert (
        f"Request r1 parts at token 4: 'x' (token {wrong['actual']}) instead of 'x' (token {wrong['golden']}),"
        in printed
    )
    assert re.search(r", margin \S+e-05, moved by 0\.005, noise 0\.0001\d*: wrong\.\n", printed)
    assert "2 of 15 tokens of 3 requests part, largest KL" in printed and "(6 x reference noise)" in printed
    assert "First divergence: lm_head" in printed and "1 of 15 tokens wrong, the first: request r1" in printed
    assert "\x1b" not in printed


def test_a_wrong_token_counts_on_the_rank_that_holds_it(parted: tuple[Path, str, int]) -> None:
    folder, _, code = parted
    report = read_report(folder)
    assert code == report["exit_code"] == ExitCode.DIVERGED
    moved = of_requests(folder)["r1"][3]["actual"]  # golden's best was left as it is
    ranks = report["labels"][0]["ranks"]
    diverged = [int(rank) for rank, verdict in ranks.items() if verdict["status"] == "diverged"]
    assert diverged == [moved // (VOCABULARY // 2)]


def test_report_json_has_every_token(parted: tuple[Path, str, int]) -> None:
    report = read_report(parted[0])
    Draft202012Validator(schema()).validate(report)
    (tokens,) = report["tokens"]
    assert tokens["counts"] == {"same": 13, "tie": 1, "wrong": 1} and tokens["ranks"] == [0, 1]
    by_name = of_requests(parted[0])
    assert {name: len(each) for name, each in by_name.items()} == {"r0": 6, "r1": 5, "r2": 4}
    assert [token["in_prompt"] for token in by_name["r2"]] == [True, False, False, False]
    assert [token["position"] for token in by_name["r2"]] == [1, 2, 3, 4]
    assert by_name["r0"][0]["taken"] == Text([6, 5, 4]).tokens[0][1] and by_name["r0"][5]["taken"] == -1
    assert by_name["r0"][2]["golden_text"] == " a" and by_name["r0"][2]["actual_text"] == "\n\x1b[31m"
    assert by_name["r0"][0]["overlap"] >= 0.6 and 0 <= by_name["r0"][0]["kl"] < 1e-6


def test_report_h5_brings_the_tokens_back_and_judges_them_again(parted: tuple[Path, str, int]) -> None:
    _, report = read_stored_report(parted[0])
    (tokens,) = report.judgement.tokens
    assert [tokens.count(state) for state in TokenState] == [13, 1, 1]
    (again,) = judge_evidence(evidence_of_report(report)).tokens
    assert again.evidence == tokens.evidence and list(again) == list(tokens) and again.source == tokens.source
    assert "\n\x1b[31m" in report.token_texts.values()


def test_the_page_has_the_text(parted: tuple[Path, str, int]) -> None:
    folder, _, _ = parted
    assert aclcmp("report", str(folder), "--html").returncode == ExitCode.MATCH
    page = (folder / "report.html").read_text()
    assert page.count('<span class="match"') == 13 and "\x1b" not in page
    assert page.count('<span class="drift"') == page.count('<span class="wrong"') == 1


def test_a_tie_alone_is_not_red(tmp_path: Path) -> None:
    text = Text([4])
    text.flip(0, 1, CLOSE, 2 * CLOSE)
    text.record(tmp_path, [[(0, 0, 4)]])
    assert judge(tmp_path, 1).exit_code is ExitCode.MATCH


def test_noise_that_nobody_measured_is_that_of_the_dtype_table(tmp_path: Path) -> None:
    text = Text([4])
    text.flip(0, 1, CLOSE / 10, CLOSE / 5)
    text.flip(0, 2, CLOSE, HIDDEN)
    text.record(tmp_path, [[(0, 0, 4)]])
    judgement = judge(tmp_path, 1, reference=False)
    (tokens,) = judgement.tokens
    assert tokens.evidence.source is None and "limit that warns" in tokens.source
    assert [state for _, state, _ in tokens] == [
        TokenState.SAME, TokenState.TIE, TokenState.WRONG, TokenState.SAME
    ]  # fmt: skip


def test_logits_that_are_no_numbers_choose_no_token(tmp_path: Path) -> None:
    text = Text([3])
    text.actual[0][1] = np.nan
    text.record(tmp_path, [[(0, 0, 3)]])
    judgement = judge(tmp_path, 1)
    (tokens,) = judgement.tokens
    assert [state for _, state, _ in tokens] == [TokenState.SAME, TokenState.WRONG, TokenState.SAME]
    assert tokens.evidence.tokens[1].actual == -1
    assert judgement.labels[0].status is Status.NONFINITE


def test_a_part_of_the_vocabulary_chooses_nothing(tmp_path: Path) -> None:
    """Of a rank that was lost nobody knows the logits."""
    text = Text([3])
    text.record(tmp_path, [[(0, 0, 3)]], ranks=3)
    for file in tmp_path.glob("rank00001*"):
        file.unlink()
    judgement = judge(tmp_path, 3)
    assert not judgement.tokens and judgement.exit_code is not ExitCode.MATCH


@pytest.mark.parametrize("reference", [True, False])
def test_golden_itself_may_be_what_is_off(tmp_path: Path, reference: bool) -> None:
    """Golden prefers a token by more than its noise usually is, but actual and the reference agree on another."""
    text = Text([4])
    best, other = text.flip(0, 1, HIDDEN, HIDDEN + CLOSE)
    text.reference[0][1, [best, other]] = text.actual[0][1, [best, other]]
    text.record(tmp_path, [[(0, 0, 4)]])
    (tokens,) = judge(tmp_path, 1, reference=reference).tokens
    assert tokens.states[1] is (TokenState.TIE if reference else TokenState.WRONG)


def test_a_row_that_is_off_as_a_whole_has_no_ties(tmp_path: Path) -> None:
    """The two logits are as right as they can be; all others say that it is not noise what moves them."""
    text = Text([4])
    best, other = text.flip(0, 1, CLOSE, 2 * CLOSE)
    others = np.setdiff1d(np.arange(VOCABULARY), [best, other])
    text.actual[0][1, others] += 10 * NOISE * np.where(others % 2, 1, -1)
    text.record(tmp_path, [[(0, 0, 4)]])
    judgement = judge(tmp_path, 1)
    assert judgement.tokens[0].states[1] is TokenState.WRONG
    assert judgement.labels[0].status is Status.DIVERGED


def test_golden_says_nothing_of_the_noise_of_a_narrower_type(tmp_path: Path) -> None:
    text = Text([4])
    text.actual = [rows.astype(np.float16) for rows in text.actual]
    text.record(tmp_path, [[(0, 0, 4)]])
    (tokens,) = judge(tmp_path, 1).tokens
    assert tokens.evidence.source is None and tokens.noise[0] > 100 * NOISE
