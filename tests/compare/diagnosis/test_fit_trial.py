"""How much of an error a change explains: beyond the noise, where rows and channels of all sizes count alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.compare.diagnosis.fit_trial import Candidate, Trial
from aclcmp.orchestrator.compare.diagnosis.fits import fits_of
from aclcmp.orchestrator.core.diagnosis import numbers_text

NOISE = 4e-3


def massive(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Golden with one massive row, and actual with round-off everywhere; that of the massive row outweighs all."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((64, 128))
    x[0] *= 1e4
    return x, x * (1 + NOISE / 2 * random.standard_normal(x.shape))


def test_without_noise_all_of_the_error_counts() -> None:
    x, y = massive()
    trial = Trial.of(x, y)
    assert trial.noise == 0.0 and trial.energy == pytest.approx(((y - x) ** 2).sum())
    weights = np.random.default_rng(1).random(x.shape)
    assert trial.beyond(y - x, weights) == pytest.approx(((y - x) ** 2 * weights).sum())


def test_round_off_of_a_massive_row_does_not_outweigh_a_wrong_row() -> None:
    x, y = massive()
    y[30] *= 1.5
    plain, beyond = Trial.of(x, y), Trial.of(x, y, noise=NOISE)
    wrong = np.zeros(x.shape, bool)
    wrong[30] = True
    assert plain.beyond(np.where(wrong, plain.d, 0.0)) < 0.1 * plain.energy
    assert beyond.noise == NOISE and beyond.beyond(np.where(wrong, beyond.d, 0.0)) > 0.95 * beyond.energy
    mended = Candidate("scale", 1, np.where(wrong, 1.5 * x, x), "")
    assert plain.explained_share(mended) < 0.1 and 0.9 < beyond.explained_share(mended) <= 1.0


def test_noise_that_is_most_of_the_error_is_not_left_out() -> None:
    """Else the few values that are beyond it by chance would be all that counts."""
    x, y = massive()
    assert Trial.of(x, y, noise=NOISE).noise == 0.0
    assert Trial.of(x, y, noise=10.0).noise == 0.0


def test_an_offset_of_ordinary_rows_is_told_beside_a_massive_one() -> None:
    x, y = massive()
    y[1:] += 0.7
    assert [fit.kind for fit in fits_of(x, y, noise=NOISE) if fit.explained >= 0.9][:1] == ["offset"]


def test_what_explains_one_massive_row_alone_explains_no_tensor() -> None:
    x, y = massive()
    y += np.random.default_rng(1).standard_normal(x.shape)
    y[0] = 2 * x[0]
    assert "scale" not in [fit.kind for fit in fits_of(x, y) + fits_of(x, y, noise=NOISE) if fit.explained >= 0.9]
    x, y = massive()
    assert fits_of(x, 2 * y, noise=NOISE)[0].kind == fits_of(x, 2 * y)[0].kind == "scale"


def test_a_tiny_actual_is_like_no_golden() -> None:
    x = np.random.default_rng(0).standard_normal((16, 32))
    trial = Trial.of(x, 1e-3 * np.random.default_rng(1).standard_normal(x.shape))
    assert trial.explained_share(Candidate("any", 1, np.zeros_like(x), "")) == 0.0
    trial = Trial.of(x, 1e-3 * x)
    assert trial.explained_share(Candidate("any", 1, 1e-3 * x, "")) == 1.0


def test_too_little_that_is_known_explains_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((16, 32))
    trial = Trial.of(x, 2 * x)
    for rows, explained in ((4, 0.0), (12, 1.0)):
        known = np.arange(16)[:, None] < rows
        assert trial.explained_share(Candidate("any", 1, 2 * x, "", known)) == explained


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([1e-3, 0.1, 10.0]),
    noise=st.sampled_from([0.0, 1e-3, 0.1]),
    known=st.booleans(),
    exact=st.booleans(),
)
def test_no_change_explains_more_than_all(seed: int, size: float, noise: float, known: bool, exact: bool) -> None:
    random = np.random.default_rng(seed)
    x: np.ndarray = random.standard_normal((16, 24)) * 10.0 ** random.integers(-3, 4, (16, 1))
    y = x + size * random.standard_normal(x.shape)
    where = random.random(x.shape) < 0.8 if known else None
    share = random.random()
    for values in (x + share * (y - x), y, random.standard_normal(x.shape), 0 * x):
        trial = Trial.of(x, y, noise=noise)
        assert trial.explained_share(Candidate("any", 1, values, "", where, exact)) <= 1.0
        assert 0.0 <= trial.beyond(values) <= replace(trial, noise=0.0).beyond(values) + 1e-9
    assert Trial.of(x, y, noise=noise).explained_share(Candidate("any", 1, x, "", where, exact)) <= 0.0


def test_numbers_are_folded() -> None:
    assert numbers_text([3]) == "3" and numbers_text([]) == ""
    assert numbers_text([3, *range(16, 32)]) == "3, 16-31"
    assert numbers_text([1, 3, 5, 7, 9, 10]) == "1, 3, 5, 7 ... (6 of them)"
