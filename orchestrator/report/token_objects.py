"""Tokens as report.json has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.tokens import Token, TokenState, TokenVerdicts
from aclcmp.orchestrator.report.text.causes import key_object
from aclcmp.orchestrator.report.text.tokens import rank_groups

MOST_TOKENS = 65_536
"""Up to so many tokens all are told; beyond, those of which both sides choose the same are only counted."""
_FIGURES = ("margin", "shift", "off", "gap", "kl", "overlap")


def token_objects(report: Report, number: Callable[[float], float | str | None]) -> list[dict[str, Any]]:
    """Return what is known of tokens: one object for ranks that choose the same, with a list for each request."""
    groups = rank_groups(report.judgement.tokens)
    all_told = sum(len(verdicts.states) for _, verdicts in groups) <= MOST_TOKENS

    def group_object(ranks: tuple[int, ...], verdicts: TokenVerdicts) -> dict[str, Any]:
        evidence = verdicts.evidence
        requests: dict[str, list[dict[str, Any]]] = {}
        for token, state, noise in verdicts:
            if not all_told and state is TokenState.SAME:
                continue
            figures = {name: number(getattr(token, name)) for name in _FIGURES}
            requests.setdefault(token.request, []).append(
                {
                    "position": token.position,
                    "in_prompt": token.in_prompt,
                    "state": state.value,
                    "golden": token.golden,
                    "actual": token.actual,
                    "taken": token.taken,
                    "golden_text": report.token_texts.get(token.golden),
                    "actual_text": report.token_texts.get(token.actual),
                    **figures,
                    "noise": number(noise),
                    **_shares_object(token, number),
                }
            )
        known = [token.kl for token in evidence.tokens if not math.isnan(token.kl)]
        return key_object(evidence.key) | {
            "ranks": list(ranks),
            "counts": {state.value: verdicts.count(state) for state in TokenState},
            "largest_kl": number(max(known)) if known else None,
            "smallest_gap": number(min(token.gap for token in evidence.tokens)),
            "noise_source": verdicts.source,
            "requests": [{"request": name, "tokens": tokens} for name, tokens in requests.items()],
        }

    return [group_object(ranks, verdicts) for ranks, verdicts in groups]


def _shares_object(token: Token, number: Callable[[float], float | str | None]) -> dict[str, Any]:
    """Return what moved the margin of a token, {} where nobody measured it."""
    if not token.shares:
        return {}
    largest = token.largest_share
    return {
        "moved_most_in": None if largest is None else largest.label,
        "moved_in": [{"label": share.label, "moved": number(share.moved)} for share in token.shares],
    }
