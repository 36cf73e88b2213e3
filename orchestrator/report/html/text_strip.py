"""The text of each request for the page: its tokens in their order, each with what its logits say of it."""

from __future__ import annotations

from dataclasses import dataclass

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.tokens import TokenState
from aclcmp.orchestrator.report.text.tokens import choice_words, rank_groups, request_words

_MOST = 4096
"""Most tokens in the page; report.json has more."""


@dataclass(frozen=True, slots=True)
class Strip:
    """The tokens of one request: text, colour (a class of grid.css) and what a pointer over it is told."""

    title: str
    tokens: tuple[tuple[str, str, str], ...]


_COLOURS = {TokenState.SAME: "match", TokenState.TIE: "drift", TokenState.WRONG: "wrong"}


def text_strips(report: Report) -> list[Strip]:
    """Return a strip for each request of each rank that chooses by itself, as far as there is room."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    room = _MOST
    groups = rank_groups(report.judgement.tokens)
    for ranks, verdicts in groups:
        where = f"rank {ranks[0]}, " if len(groups) > 1 else ""
        for token, state, noise in verdicts:
            if not room:
                break
            room -= 1
            chosen = token.actual if token.taken < 0 else token.taken
            text = report.token_texts.get(chosen)
            words = choice_words((token, state, noise), report.token_texts)
            face = (text or f"\u27e8{chosen}\u27e9", _COLOURS[state], words)
            found.setdefault(f"{where}{request_words(token.request)}", []).append(face)
    return [Strip(title, tuple(tokens)) for title, tokens in found.items()]
