"""What a sentence says of the part of the model that moved a margin."""

from dataclasses import replace

import pytest

from aclcmp.orchestrator.core.margins import Share
from aclcmp.orchestrator.core.tokens import Token, TokenState
from aclcmp.orchestrator.report.text.tokens import choice_words

TOKEN = Token("r", 5, False, 1, 2, 3, 3, 3, 0.5, 0.6, 0.1, 0.5, 0.01, 0.8, 1.0, 0.1)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((), ""),
        ((0.1, 0.45, 0.05), "; most of it moved in layers.1 (0.45 of 0.6)"),
        ((0.25, 0.2, 0.15), "; moved most in layers.0 (0.25 of 0.6)"),
        ((0.9, -0.3, 0.0), "; most of it moved in layers.0 (0.9, 0.3 back elsewhere)"),
        ((3.0, -3.0, 0.6), ""),  # each far more than all: the first order tells nothing
        ((-0.5, 0.2, 0.1), ""),  # away from the other token
        ((float("nan"), 0.2, 0.4), ""),
    ],
)
def test_the_largest_share_is_named_where_shares_say_something(shares: tuple[float, ...], words: str) -> None:
    token = replace(TOKEN, shares=tuple(Share(f"layers.{number}", moved) for number, moved in enumerate(shares)))
    assert choice_words((token, TokenState.TIE, 0.7), {}) == (
        f"at token 5: token 3 instead of token 2, margin 0.5, noise 0.7: a tie{words}"
    )
