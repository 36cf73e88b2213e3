"""Facts of rows of logits, beside plain numpy over whole rows, whatever parts they come from."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.core.choices import BEST, RowChoices, choices_of, is_vocabulary

Floats = npt.NDArray[np.float64]


@st.composite
def logits(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Two sides of some rows, with equal values, values that are not finite, and sometimes a large vocabulary."""
    rows, tokens = draw(st.integers(1, 4)), draw(st.sampled_from([2, 3, 7, 40, 700]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = random.normal(scale=draw(st.sampled_from([0.0, 1.0, 30.0])), size=(rows, tokens)) + draw(
        st.sampled_from([0.0, -200.0, 900.0])
    )
    y = x + random.normal(scale=draw(st.sampled_from([0.0, 1e-3, 5.0])), size=x.shape)
    if draw(st.booleans()):  # as half precision rounds them
        x, y = np.round(x, 1), np.round(y, 1)
    for side in (x, y):
        for value in draw(st.lists(st.sampled_from([np.nan, -np.inf, np.inf]), max_size=3)):
            side[random.integers(rows), random.integers(tokens)] = value
    return x, y


def parts_of(data: st.DataObject, size: int) -> list[slice]:
    cuts = sorted(data.draw(st.sets(st.integers(1, size - 1), max_size=3))) if size > 1 else []
    return [slice(begin, end) for begin, end in zip([0, *cuts], [*cuts, size], strict=True)]


@given(st.data())
def test_parts_of_the_vocabulary_and_of_the_rows_add_up(data: st.DataObject) -> None:
    x, y = data.draw(logits())
    whole = choices_of(x, y, 10, 0)
    parts = [
        choices_of(x[rows, tokens], y[rows, tokens], 10 + rows.start, tokens.start)
        for rows in parts_of(data, len(x))
        for tokens in parts_of(data, x.shape[1])
    ]
    found = parts[0]
    for part in data.draw(st.permutations(parts[1:])):
        found = found.merge(part)
    assert found.table["row"].tolist() == list(range(10, 10 + len(x)))
    for name in ("golden_i", "actual_i", "n"):
        np.testing.assert_array_equal(found.table[name], whole.table[name])
    for name in ("golden_x", "golden_y", "actual_x", "actual_y", "largest_x", "largest_y"):
        np.testing.assert_array_equal(found.table[name], whole.table[name])
    for name in ("kl", "overlap", "spread", "size", "margin", "shift", "gap"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-6, atol=1e-5, err_msg=name)


@given(logits())
def test_facts_of_whole_rows(sides: tuple[Floats, Floats]) -> None:
    x, y = sides
    found = choices_of(x, y, 0, 0)
    for number, (golden, actual) in enumerate(zip(x, y, strict=True)):
        check_row(found, number, golden, actual)


def check_row(found: RowChoices, number: int, x: Floats, y: Floats) -> None:
    row = found.table[number]
    orders = []
    for side, values in (("golden", x), ("actual", y)):
        numbers = [at for at in range(len(x)) if values[at] > -np.inf]  # NaN is not
        order = [at for _, at in sorted((-values[at], at) for at in numbers)]
        best = order[:BEST]
        orders.append(order)
        assert row[f"{side}_i"][: len(best)].tolist() == best and (row[f"{side}_i"][len(best) :] == -1).all()
    assert found.overlap[number] == len({*orders[0][:BEST]} & {*orders[1][:BEST]}) / max(len(orders[0][:BEST]), 1)
    if np.isfinite([*x, *y]).all():
        a, b = orders[0][0], orders[1][0]
        assert found.margin[number] == pytest.approx(x[a] - x[b])
        assert found.shift[number] == pytest.approx(x[a] - x[b] - (y[a] - y[b]))
        assert found.shift[number] >= found.margin[number] - 1e-9  # b is actual's best
        assert found.spread[number] == pytest.approx(np.std(y - x), abs=1e-5)
        assert found.size[number] == pytest.approx(np.sqrt(np.mean(x * x)))
        p, q = (np.exp(side - side.max()) / np.exp(side - side.max()).sum() for side in (x, y))
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = np.where(p > 0, p * np.log(p / q), 0).sum()
        if np.isfinite(expected):
            assert found.kl[number] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_what_is_no_number_is_no_choice() -> None:
    x = np.array([[1.0, np.nan, 0.0], [np.nan] * 3, [-np.inf, 2.0, -np.inf]])
    found = choices_of(x, np.zeros_like(x), 0, 0)
    assert found.table["golden_i"][:, 0].tolist() == [0, -1, 1]
    assert found.table["n"].tolist() == [2, 0, 1]


@pytest.mark.parametrize("label", ["lm_head", "logits", "language_model.lm_head"])
def test_names_of_the_vocabulary(label: str) -> None:
    assert is_vocabulary(label)


@pytest.mark.parametrize("label", ["lm_head.input", "model.layers.3.mlp.logits", "router_logits", "logits_processor"])
def test_other_names(label: str) -> None:
    assert not is_vocabulary(label)
