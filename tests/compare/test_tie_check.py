"""Ids that differ: ties by golden's scores, or not."""

from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.errors import ShardError
from aclcmp.orchestrator.compare import tie_check
from aclcmp.orchestrator.compare.kernels.memory_map import MappedBits, open_bits
from aclcmp.orchestrator.compare.tie_check import count_ties, scores_fit
from aclcmp.orchestrator.compare.work import answer_tie_question
from aclcmp.orchestrator.core.diagnosis import TieQuestion
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source


def stored(array: npt.NDArray[np.generic], path: Path) -> Source:
    path.write_bytes(np.ascontiguousarray(array).tobytes())
    return Source(str(path), 0, array.dtype.name, array.shape)


def question(
    golden: npt.NDArray[np.generic],
    actual: npt.NDArray[np.generic],
    scores: npt.NDArray[np.generic],
    noise: float,
    folder: Path,
) -> TieQuestion:
    x, y = stored(golden, folder / "x"), stored(actual, folder / "y")
    region = Region.whole(golden.shape)
    pair = Pair(LabelKey(0, "ids", 0), 0, x, region, y, region, golden.shape, region, "")
    return TieQuestion(pair, stored(scores, folder / "scores"), noise)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64", "bfloat16"]), st.sampled_from([1, 3]))
def test_a_flip_by_noise_is_always_a_tie(seed: int, dtype: str, k: int) -> None:
    from tempfile import TemporaryDirectory

    random = np.random.default_rng(seed)
    scores = random.standard_normal((16, 12)).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    wide = scores.astype(np.float64)
    errors = random.uniform(-0.3, 0.3, wide.shape)
    golden, actual = (np.argsort(-each, axis=-1)[:, :k] for each in (wide, wide + errors))
    if k == 1:
        golden, actual = golden[:, 0], actual[:, 0]
    with TemporaryDirectory() as folder:
        found = count_ties(question(golden, actual, scores, float(np.abs(errors).max()), Path(folder)))
    flips = golden != actual
    assert found == np.count_nonzero(flips) if k == 1 else found <= np.count_nonzero(flips)


def test_a_wrong_id_is_none(tmp_path: Path) -> None:
    scores = np.array([[3.0, 1.0, 2.99], [0.0, 5.0, 1.0], [1.0, 0.0, 0.0]], np.float32)
    golden = np.array([0, 1, 0], np.int64)
    actual = np.array([2, 0, 7], np.int64)
    assert count_ties(question(golden, actual, scores, 0.01, tmp_path)) == 1
    assert count_ties(question(golden, actual.astype(np.int32), scores, 3.0, tmp_path)) == 2, "7 is no place at all"


def test_scores_of_other_ids_make_no_ties(tmp_path: Path) -> None:
    hidden = np.random.default_rng(0).standard_normal((16, 12))
    golden = np.argmin(hidden, axis=-1)
    assert count_ties(question(golden, (golden + 1) % 12, hidden, 100.0, tmp_path)) == 0, "an error as of outliers"
    golden = np.argmax(hidden, axis=-1)
    assert count_ties(question(golden, (golden + 1) % 12, hidden, 100.0, tmp_path)) == 16


def test_one_id_twice_is_no_tie(tmp_path: Path) -> None:
    scores = np.array([[3.0, 2.99, 2.98, 0.0]])
    golden = np.array([[0, 1]])
    assert count_ties(question(golden, np.array([[0, 2]]), scores, 0.01, tmp_path)) == 1
    assert count_ties(question(golden, np.array([[0, 0]]), scores, 0.01, tmp_path)) == 0
    everything = np.array([[0, 1, 2, 3]])
    assert count_ties(question(everything, np.array([[1, 0, 2, 3]]), scores, 0.01, tmp_path)) == 0, "no ids: all places"


@pytest.mark.parametrize("name", ["x", "y", "scores"])
def test_a_file_that_is_cut_while_it_is_open_has_no_ties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def open_and_cut(source: Source) -> MappedBits:
        opened = open_bits(source)
        if Path(source.path).name == name:
            os.truncate(source.path, 0)
        return opened

    scores = np.array([[3.0, 1.0, 2.99], [0.0, 5.0, 1.0]], np.float32)
    asked = question(np.array([0, 1]), np.array([2, 0]), scores, 0.01, tmp_path)
    assert count_ties(asked) == 1
    monkeypatch.setattr(tie_check, "open_bits", open_and_cut)
    with pytest.raises(ShardError, match="cut while it was compared"):
        count_ties(asked)


@pytest.mark.parametrize("error", [ShardError("damaged"), MemoryError(), ValueError("a shape")])
def test_a_question_that_cannot_be_answered_has_no_ties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(source: Source) -> MappedBits:
        raise error

    asked = question(np.array([0]), np.array([2]), np.array([[3.0, 1.0, 2.99]]), 0.01, tmp_path)
    assert answer_tie_question(asked) == 1
    monkeypatch.setattr(tie_check, "open_bits", fail)
    assert answer_tie_question(asked) == 0


def test_shapes_that_fit() -> None:
    assert scores_fit((4, 8), (4, 8, 100)) and scores_fit((4, 8, 2), (4, 8, 100)) and scores_fit((), (100,))
    assert not scores_fit((4, 8), (8, 100)) and not scores_fit((4,), ())
