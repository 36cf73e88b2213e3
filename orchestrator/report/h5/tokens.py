"""Tokens in report.h5, written and read again without loss.

/tokens               table, one row per token: task, label, occurrence, the fields of `Token`, state, and limit: how
                      far noise alone moves the difference of two logits
/token_sources        table, one row for the tokens of a label on ranks that hold its vocabulary together, in the order
                      of /tokens: count, holders (JSON: rank, first id and end of each slice), source of the measured
                      noise ("" where nobody measured it), and where the limit comes from in words
/token_shares         table, for tokens of which it was measured what moved their margin: token (its row in /tokens),
                      label and moved, in the order in which the model computes
/token_texts          table: token, text
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice

import h5py

from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.margins import Share
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.tokens import Holder, Token, TokenEvidence, TokenState, TokenVerdicts
from aclcmp.orchestrator.report.flat import KINDS
from aclcmp.orchestrator.report.h5.primitives import read_columns, read_table, write_table

_FACTS = [field for field in fields(Token) if field.name != "shares"]
"""The fields of a token that are one value each."""


def write_tokens(file: h5py.File, tokens: Sequence[TokenVerdicts], texts: Mapping[int, str]) -> None:
    """Write the tokens and their texts."""
    rows = [(verdicts.evidence, *choice) for verdicts in tokens for choice in verdicts]
    write_table(
        file,
        "tokens",
        {
            "task": (int, [evidence.key.task for evidence, *_ in rows]),
            "label": (str, [evidence.key.label for evidence, *_ in rows]),
            "occurrence": (int, [evidence.key.occurrence for evidence, *_ in rows]),
            **{
                field.name: (KINDS[str(field.type)], [getattr(token, field.name) for _, token, _, _ in rows])
                for field in _FACTS
            },
            "state": (str, [state.value for *_, state, _ in rows]),
            "limit": (float, [limit for *_, limit in rows]),
        },
    )
    sources = [verdicts.evidence.source for verdicts in tokens]
    write_table(
        file,
        "token_sources",
        {
            "count": (int, [len(verdicts.states) for verdicts in tokens]),
            "holders": (str, [json.dumps(verdicts.evidence.holders) for verdicts in tokens]),
            "source": (str, ["" if source is None else source.value for source in sources]),
            "words": (str, [verdicts.source for verdicts in tokens]),
        },
    )
    shares = [(row, share) for row, (_, token, *_) in enumerate(rows) for share in token.shares]
    write_table(
        file,
        "token_shares",
        {
            "token": (int, [row for row, _ in shares]),
            "label": (str, [share.label for _, share in shares]),
            "moved": (float, [share.moved for _, share in shares]),
        },
    )
    write_table(file, "token_texts", {"token": (int, list(texts)), "text": (str, list(texts.values()))})


def read_tokens(file: h5py.File) -> tuple[tuple[TokenVerdicts, ...], dict[int, str]]:
    """Return the tokens and their texts; none of a report of an earlier version. Raises ValueError for wrong ones."""
    if "tokens" not in file:
        return (), {}
    columns = read_columns(file, "tokens")
    kinds = {field.name: KINDS[str(field.type)] for field in _FACTS} | {"task": int, "occurrence": int, "limit": float}
    _check("tokens", columns, kinds)
    tokens = iter(_with_shares(file, list(map(Token, *(columns[field.name] for field in _FACTS)))))
    keys = list(map(LabelKey, columns["task"], columns["label"], columns["occurrence"]))
    states = list(map(TokenState, columns["state"]))
    found = []
    begin = 0
    for row in read_table(file, "token_sources"):
        end = begin + row["count"]
        if not begin < end <= len(keys):
            raise ValueError("/token_sources tells of tokens that are not there")
        source = FloorSource(row["source"]) if row["source"] else None
        holders = tuple(Holder(*map(int, holder)) for holder in json.loads(row["holders"]))
        evidence = TokenEvidence(keys[begin], holders, tuple(islice(tokens, row["count"])), source)
        found.append(TokenVerdicts(evidence, states[begin:end], columns["limit"][begin:end], row["words"]))
        begin = end
    if begin < len(keys):
        raise ValueError("/token_sources does not tell of all tokens")
    texts = read_columns(file, "token_texts")
    return tuple(found), dict(zip(texts["token"], texts["text"], strict=True))


def _with_shares(file: h5py.File, tokens: list[Token]) -> list[Token]:
    """Return the tokens with what moved their margins. Raises ValueError where that is of none of them."""
    if "token_shares" not in file:  # a report of an earlier version
        return tokens
    columns = read_columns(file, "token_shares")
    _check("token_shares", columns, {"token": int, "label": str, "moved": float})
    shares: dict[int, list[Share]] = {}
    for row, *share in zip(columns["token"], columns["label"], columns["moved"], strict=True):
        if not 0 <= row < len(tokens):
            raise ValueError("/token_shares tells of tokens that are not there")
        shares.setdefault(row, []).append(Share(*share))
    return [replace(token, shares=tuple(shares.get(row, ()))) for row, token in enumerate(tokens)] if shares else tokens


def _check(table: str, columns: Mapping[str, Sequence[object]], kinds: Mapping[str, type]) -> None:
    """Raise ValueError where a column of a table is not of its kind."""
    for name, kind in kinds.items():
        if not all(isinstance(value, kind) for value in columns[name]):
            raise ValueError(f"/{table} has a {name} that is no {kind.__name__}")
