"""What the tokens say, in sentences: where the text of a request parts, and whether noise explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf, isnan

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import count, of_ranks
from aclcmp.orchestrator.core.tokens import Token, TokenState, TokenVerdicts

_MOST_REQUESTS = 6
_UNREADABLE = "\ufffd"
"""What decoding gives for a token that is only a part of a character."""

RankGroup = tuple[tuple[int, ...], TokenVerdicts]
Choice = tuple[Token, TokenState, float]


def rank_groups(tokens: Sequence[TokenVerdicts]) -> list[RankGroup]:
    """Return ranks whose tokens of a label are the same together, each with the verdicts of the first one."""
    found: dict[object, tuple[list[int], TokenVerdicts]] = {}
    for verdicts in tokens:
        alike = (
            verdicts.evidence.key,
            tuple((t.request, t.position, t.golden, t.actual, state) for t, state, _ in verdicts),
        )
        ranks, _ = found.setdefault(alike, ([], verdicts))
        ranks += verdicts.evidence.ranks
    return [(tuple(ranks), verdicts) for ranks, verdicts in found.values()]


def token_lines(report: Report) -> list[tuple[str, TokenState]]:
    """Return a sentence for each request whose text parts, or one that none does; each with how bad it is."""
    groups = rank_groups(report.judgement.tokens)
    if not groups:
        return []
    labels = [verdicts.evidence.key for _, verdicts in groups]
    parted = [
        (lines, state)
        for ranks, verdicts in groups
        for lines, state in _request_lines(verdicts, _of_label(ranks, verdicts, labels), report.token_texts)
    ]
    parted.sort(key=lambda each: each[1] is not TokenState.WRONG)  # stable
    lines = [(line, state) for some, state in parted[:_MOST_REQUESTS] for line in some]
    if len(parted) > _MOST_REQUESTS:
        more = parted[_MOST_REQUESTS:]
        wrong = sum(state is TokenState.WRONG for _, state in more)
        what = f"{wrong:,} of them wrong" if wrong else "all of them ties"
        lines.append((f"{count(len(more), 'more request')} part, {what}", more[0][1]))
    lines += [(line, TokenState.SAME) for line in _summaries(groups, labels, parted=bool(parted))]
    return [(f"{line[:1].upper()}{line[1:]}.", state) for line, state in lines]


def _of_label(ranks: Sequence[int], verdicts: TokenVerdicts, labels: Sequence[LabelKey]) -> str:
    """Name the ranks where not all of the label choose the same, and the label where there are several."""
    key = verdicts.evidence.key
    where = f" on {of_ranks(ranks)}" if labels.count(key) > 1 else ""
    return where + (f" by {key.label}, task {key.task}" if len(set(labels)) > 1 else "")


def _request_lines(verdicts: TokenVerdicts, where: str, texts: Mapping[int, str]) -> list[tuple[list[str], TokenState]]:
    """Return the lines of each request that parts: the first token that differs, and the first that is wrong."""
    by_request: dict[str, list[Choice]] = {}
    for choice in verdicts:
        if choice[1] is not TokenState.SAME:
            by_request.setdefault(choice[0].request, []).append(choice)
    found = []
    for request, choices in by_request.items():
        name = request_words(request) + where
        first, *_ = choices
        wrong = [choice for choice in choices if choice[1] is TokenState.WRONG]
        lines = [f"{name} {_parts(first[0])} {choice_words(first, texts)}"]
        if wrong and first[1] is TokenState.TIE:
            lines.append(f"{name} {_parts(wrong[0][0])} {choice_words(wrong[0], texts)}")
        lines[-1] += _others(wrong or choices)
        found.append((lines, TokenState.WRONG if wrong else TokenState.TIE))
    return found


def _parts(token: Token) -> str:
    return "would part inside its prompt" if token.in_prompt else "parts"


def request_words(request: str) -> str:
    """Name a request."""
    return f"request {request}" if request else "the text"


def choice_words(choice: Choice, texts: Mapping[int, str]) -> str:
    """Say where a token is, which ones the sides choose, and by how much."""
    token, state, noise = choice
    if state is TokenState.SAME:
        return (
            f"at token {token.position:,}: {token_words(token.golden, texts)}, margin {_figure(token.gap)}, "
            f"noise {_figure(noise)}"
        )
    moved = "" if state is TokenState.TIE else f", moved by {_figure(token.shift)}"
    if state is TokenState.WRONG and token.shift <= noise:
        moved += f" in a row of logits that are off by {_figure(token.off)}"
    tokens = token_words(token.actual, texts, token.golden), token_words(token.golden, texts, token.actual)
    what = "a tie" if state is TokenState.TIE else "wrong"
    return (
        f"at token {token.position:,}: {tokens[0]} instead of {tokens[1]}, margin {_figure(token.margin)}{moved}, "
        f"noise {_figure(noise)}: {what}{_place_of_move(token)}"
    )


def _place_of_move(token: Token) -> str:
    """Say which part of the model moved the margin most, where that is known."""
    largest = token.largest_share
    if largest is None:
        return ""
    whole = sum(share.moved for share in token.shares)
    most = "most of it moved" if largest.moved >= whole / 2 else "moved most"
    back = largest.moved - whole
    size = (
        f"{_figure(largest.moved)}, {_figure(back)} back elsewhere"
        if back > whole / 10
        else (f"{_figure(largest.moved)} of {_figure(whole)}")
    )
    return f"; {most} in {largest.label} ({size})"


def _others(choices: Sequence[Choice]) -> str:
    """Say how many more tokens are as the first one is."""
    more = len(choices) - 1
    return f", as {'is' if more == 1 else 'are'} {count(more, 'more token')} of it" if more else ""


def _summaries(groups: Sequence[RankGroup], labels: Sequence[LabelKey], *, parted: bool) -> list[str]:
    """Return a line on all tokens of each label: whether none parts, the largest KL and the smallest margin."""
    lines = []
    for ranks, verdicts in groups:
        tokens = verdicts.evidence.tokens
        requests = len({token.request for token in tokens})
        differing = len(tokens) - verdicts.count(TokenState.SAME)
        closest = min(tokens, key=lambda token: token.gap)
        most = max(tokens, key=lambda token: -1.0 if isnan(token.kl) else token.kl)
        noise = verdicts.noise[tokens.index(closest)]
        of_all = f"{count(len(tokens), 'token')} of {count(requests, 'request')}"
        what = f"{differing:,} of {of_all} part" if differing else f"no text parts: {of_all}"
        if not differing and parted:
            what = f"none of {of_all} parts"
        lines.append(
            f"{what}{_of_label(ranks, verdicts, labels)}, largest KL {_figure(most.kl)}, smallest margin "
            f"{_figure(closest.gap)} ({f'request {closest.request}, ' if closest.request else ''}token "
            f"{closest.position:,}) with noise {_figure(noise)} there ({verdicts.source})"
        )
        if others := sum(token.taken not in (-1, token.actual) and not token.in_prompt for token in tokens):
            lines.append(
                f"{count(others, 'token')} of the engine's text {'is' if others == 1 else 'are'} not the best of its "
                "logits: sampled, or changed by a processor"
            )
    return lines


def token_words(token: int, texts: Mapping[int, str], beside: int = -1) -> str:
    """Return the text of a token in quotes, with its id where the text alone does not tell it from another."""
    if token < 0:
        return "no token"
    text = texts.get(token)
    if text is None:
        return f"token {token}"
    unclear = _UNREADABLE in text or texts.get(beside) == text
    return f"{text!r} (token {token})" if unclear else repr(text)


def _figure(value: float) -> str:
    return "inf" if isinf(value) else f"{value:.2g}"
