"""Tokens in report.h5, written and read again without loss.

/tokens               table, one row per token: task, label, occurrence, the fields of `Token`, state, and limit: how
                      far noise alone moves the difference of two logits
/token_sources        table, one row for the tokens of a label on ranks that hold its vocabulary together, in the order
                      of /tokens: count, holders (JSON: rank, first id and end of each slice), source of the measured
                      noise ("" where nobody measured it), and where the limit comes from in words
/token_texts          table: token, text
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import islice

import h5py

from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.tokens import Holder, Token, TokenEvidence, TokenState, TokenVerdicts
from aclcmp.orchestrator.report.flat import KINDS
from aclcmp.orchestrator.report.h5.primitives import read_columns, read_table, write_table


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
                for field in fields(Token)
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
    write_table(file, "token_texts", {"token": (int, list(texts)), "text": (str, list(texts.values()))})


def read_tokens(file: h5py.File) -> tuple[tuple[TokenVerdicts, ...], dict[int, str]]:
    """Return the tokens and their texts; none of a report of an earlier version. Raises ValueError for wrong ones."""
    if "tokens" not in file:
        return (), {}
    columns = read_columns(file, "tokens")
    tokens = iter(list(map(Token, *(columns[field.name] for field in fields(Token)))))
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
    texts = read_columns(file, "token_texts")
    return tuple(found), dict(zip(texts["token"], texts["text"], strict=True))
