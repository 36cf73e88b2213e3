"""What moved the margin of a token that parts, through real shards: a stream of known shares, in every report."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from jsonschema import Draft202012Validator

from aclcmp.labeling.recorder import Recorder
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.margin_table import Margin
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.pipeline.stored_reports import read_stored_report
from aclcmp.orchestrator.report.as_json import schema
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record, save_record
from tests.pipeline.test_tokens import aclcmp, closing
from tests.recorded import read_report, record_run, recorder_of

Array = npt.NDArray[np.float32]
WIDTH, VOCABULARY = 16, 40
TOKENS = [3, 1, 4, 1, 5, 9, 2]
LAYERS = ("model.embed_tokens", "model.layers.0", "model.layers.0.self_attn", "model.layers.1", "model.norm")
FLIPPED = 4
"""Row of logits that chooses another token."""
GOLDEN, ACTUAL = 11, 30
WRONG = "model.layers.1"


class Stream:
    """The stream of two requests, of which the second has the text of the first: their rows must not mix."""

    def __init__(self) -> None:
        random = np.random.default_rng(3)
        self.golden = {name: _random(random, WIDTH) for name in LAYERS} | {"lm_head": _random(random, VOCABULARY)}
        self.golden["lm_head"][:, GOLDEN] = 9.0
        self.actual = {name: value.copy() for name, value in self.golden.items()}
        self.actual[WRONG] += random.normal(size=(len(TOKENS), WIDTH)).astype(np.float32)
        self.actual["lm_head"][FLIPPED, ACTUAL] = 12.0
        rows = FLIPPED + 1
        self.gradients = {name: _random(random, WIDTH)[:rows] for name in LAYERS}
        self.gradients["lm_head"] = np.zeros((1, VOCABULARY), np.float32)
        self.gradients["lm_head"][0, [GOLDEN, ACTUAL]] = 1.0, -1.0

    def move(self, name: str, moved: float) -> None:
        """Give a label the smallest error that moves the margin so far."""
        gradient = self.gradients[name]
        self.actual[name] = self.golden[name].copy()
        self.actual[name][: len(gradient)] -= gradient * moved / np.square(gradient).sum()

    def points(self) -> list[tuple[str, tuple[str, ...]]]:
        between = ("model.embed_tokens", "model.layers.0.self_attn")
        return [
            ("model.embed_tokens", ("model.embed_tokens",)),
            ("model.layers.0.self_attn", between),
            ("model.layers.0.mlp", ("model.layers.0",)),
            ("model.layers.1", ("model.layers.1",)),
            ("model.norm", ("model.norm",)),
            ("lm_head", ("lm_head",)),
        ]

    def shares(self) -> dict[str, float]:
        """Return what each part moved, by its definition."""
        moved = [0.0]
        for _, labels in self.points():
            gradient = self.gradients[labels[-1]]
            rows = slice(FLIPPED + 1 - len(gradient), FLIPPED + 1)
            error = sum((self.golden[name] - self.actual[name])[rows].astype(np.float64) for name in labels)
            moved.append(float((gradient * error).sum()))
        return {name: share for (name, _), share in zip(self.points(), np.diff(moved), strict=True)}

    def record(self, folder: Path, ranks: int, *, lost: str = "", samples: int = 0) -> None:
        """Record golden and the gradients on rank 0, actual on all ranks, token by token from the third on.

        The reference is golden, and behind its first sample something else.
        """
        for rank in range(ranks):
            with closing(recorder_of(folder, rank, ranks, strict=True)) as recorder:
                if rank == 0:
                    for request in ("a", "b"):
                        record_rows(recorder, "pta", self.golden, request, 0, len(TOKENS))
                    for sample in range(samples):
                        reference = {name: value + 0.1 * sample for name, value in self.golden.items()}
                        for request in ("a", "b"):
                            record_rows(recorder, "ref", reference, request, 0, len(TOKENS))
                    self.record_gradients(recorder)
                    recorder.name_tokens({GOLDEN: " gold", ACTUAL: " act"})
                actual = {name: value for name, value in self.actual.items() if name != lost}
                record_rows(recorder, "acl", actual, "a", 0, 3)
                record_rows(recorder, "acl", self.golden, "b", 0, len(TOKENS))
                for row in range(3, len(TOKENS)):
                    record_rows(recorder, "acl", actual, "a", row, row + 1)

    def record_gradients(self, recorder: Recorder) -> None:
        points = []
        for name, labels in self.points():
            value = self.gradients[labels[-1]]
            rows = Rows("a", range(FLIPPED + 1 - len(value), FLIPPED + 1), TOKENS[: FLIPPED + 1][-len(value) :])
            points.append((name, labels, value, rows))
        recorder.record_margin(Margin("a", FLIPPED + 1, GOLDEN, ACTUAL), points)


def _random(random: np.random.Generator, width: int) -> Array:
    return random.normal(size=(len(TOKENS), width)).astype(np.float32)


def record_rows(recorder: Recorder, side: str, stream: dict[str, Array], request: str, begin: int, end: int) -> None:
    rows = Rows(request, range(begin, end), TOKENS[begin:end])
    for name, value in stream.items():
        recorder.record(side, name, value[begin:end], None, None, "", None, "f.py:1", rows)


def compared(folder: Path, stream: Stream, ranks: int = 2, *, lost: str = "", samples: int = 0) -> tuple[RunDir, str]:
    run = RunDir(folder / "run", "run")
    run.shards.mkdir(parents=True)
    run.logs.mkdir()
    stream.record(run.shards, ranks, lost=lost, samples=samples)
    record_run(run, "engine.py", ranks)
    return run, aclcmp("compare", str(run.root)).stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run, printed = compared(tmp_path_factory.mktemp("runs"), Stream())
    return run.root, printed


def parted(folder: Path) -> list[dict[str, Any]]:
    return [
        token
        for ranks in read_report(folder)["tokens"]
        for request in ranks["requests"]
        for token in request["tokens"]
        if token["state"] != "same"
    ]


def test_each_part_has_its_share(run: tuple[Path, str]) -> None:
    Draft202012Validator(schema()).validate(read_report(run[0]))
    (token,) = parted(run[0])
    assert {each["label"]: each["moved"] for each in token["moved_in"]} == pytest.approx(Stream().shares(), abs=1e-5)
    assert sum(each["moved"] for each in token["moved_in"]) == pytest.approx(token["shift"], rel=1e-5)


def test_gradients_are_no_labels(run: tuple[Path, str]) -> None:
    report = read_report(run[0])
    assert {label["label"] for label in report["labels"]} == {*LAYERS, "lm_head"}
    assert report["coverage"]["compared"] == 2 * (len(LAYERS) + 1) and not report["coverage"]["missing_golden"]


def test_the_terminal_and_the_page_name_the_largest(tmp_path: Path) -> None:
    stream = Stream()
    shift = 12.0 - stream.golden["lm_head"][FLIPPED, ACTUAL]
    for name in (WRONG, "model.norm"):  # what is wrong moves all of it, and nothing behind it more
        stream.move(name, shift)
    run, printed = compared(tmp_path, stream)
    words = rf"most of it moved in {re.escape(WRONG)} \({shift:.2g} of {shift:.2g}\)"
    assert re.search(rf"Request a parts at token 5: .*: wrong; {words}\.", printed), printed
    assert aclcmp("report", str(run.root), "--html").returncode == 0
    assert f"most of it moved in {WRONG}" in (run.root / "report.html").read_text()
    (token,) = parted(run.root)
    assert token["moved_most_in"] == WRONG


def test_report_h5_brings_the_shares_back(run: tuple[Path, str]) -> None:
    _, report = read_stored_report(run[0])
    moved = [token.shares for tokens in report.judgement.tokens for token, _, _ in tokens if token.shares]
    assert len(moved) == 2, "of each rank that chooses"
    for shares in moved:
        assert {share.label: share.moved for share in shares} == pytest.approx(Stream().shares(), abs=1e-5)


def test_what_is_not_there_on_one_side_is_not_measured(tmp_path: Path) -> None:
    run, printed = compared(tmp_path, Stream(), lost="model.layers.0")
    (token,) = parted(run.root)
    assert "moved_in" not in token and "most of it moved" not in printed


@pytest.mark.parametrize("samples", [1, 3])
def test_the_first_sample_of_the_reference_counts(tmp_path: Path, samples: int) -> None:
    run, _ = compared(tmp_path, Stream(), samples=samples)
    (token,) = parted(run.root)
    assert {each["label"]: each["moved"] for each in token["moved_in"]} == pytest.approx(Stream().shares(), abs=1e-5)


def test_a_run_on_golden_values_tells_shares_and_texts_too(run: tuple[Path, str], tmp_path: Path) -> None:
    """What carries on is the golden run's own actual side."""
    local = RunDir(tmp_path / "local", "run")
    local.shards.mkdir(parents=True)
    local.logs.mkdir()
    with closing(recorder_of(local.shards, strict=True)) as recorder:
        for request in ("a", "b"):
            record_rows(recorder, "acl", Stream().golden, request, 0, len(TOKENS))
    record_run(local, "engine.py", 1)
    save_record(load_record(local.record).model_copy(update={"golden": str(run[0])}), local.record)
    printed = aclcmp("compare", str(local.root)).stdout
    (token,) = parted(local.root)
    assert token["moved_in"] == parted(run[0])[0]["moved_in"]
    assert "own errors measured" in printed and "' act' instead of ' gold'" in printed


def test_a_damaged_margin_leaves_the_labels(tmp_path: Path) -> None:
    Stream().record(tmp_path, 1)
    for file in tmp_path.glob("*.h5"):
        content = file.read_bytes()
        assert content.count(b'[["a", 5, 11, 30]') == 1
        file.write_bytes(content.replace(b'[["a", 5, 11, 30]', b'[["a", 5, 11, 3x]'))
    for files in shards_in(tmp_path):
        index = read_shard(files)
        assert index.margins == () and len(index.records) > 0
        assert "what moved the margins of tokens is lost" in index.notes[0]
