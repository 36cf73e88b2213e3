"""Tokens in report.h5: what does not fit together is told, not read."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.margins import Share
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.tokens import Holder, Token, TokenEvidence, TokenState, TokenVerdicts
from aclcmp.orchestrator.report.h5.tokens import read_tokens, write_tokens

SHARES = (Share("layers.0", 0.5), Share("layers.1", -0.125))
VERDICTS = TokenVerdicts(
    TokenEvidence(
        LabelKey(0, "lm_head", 0),
        (Holder(0, 0, 9),),
        tuple(
            Token("r", place, False, 1, 2, 3, 3, 3, 0.5, 0.6, 0.1, 0.5, 0.01, 0.8, 1.0, 0.1, SHARES if place else ())
            for place in range(2)
        ),
        FloorSource.REFERENCE,
    ),
    [TokenState.TIE, TokenState.WRONG],
    [0.6, 0.6],
    "noise",
)


def changed(file: h5py.File, name: str, change: Any) -> None:
    table = file[name][:]
    del file[name]
    file[name] = change(table)


def less(table: Any) -> Any:
    return table[:-1]


def with_value(column: str, value: object) -> Any:
    def change(table: Any) -> Any:
        table[column] = value
        return table

    return change


def as_text(column: str) -> Any:
    def change(table: Any) -> Any:
        kinds = [(name, "S3" if name == column else table.dtype[name]) for name in table.dtype.names]
        return table.astype(np.dtype(kinds))

    return change


@pytest.fixture
def file(tmp_path: Path) -> Any:
    with h5py.File(tmp_path / "report.h5", "w") as file:
        write_tokens(file, [VERDICTS], {3: "x"})
        yield file


def test_they_come_back(file: h5py.File) -> None:
    (tokens,), texts = read_tokens(file)
    assert tokens.evidence == VERDICTS.evidence and list(tokens) == list(VERDICTS) and texts == {3: "x"}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("tokens", less, "not there"),
        ("tokens", as_text("margin"), "margin that is no float"),
        ("tokens", as_text("golden"), "golden that is no int"),
        ("tokens", with_value("state", b"odd"), "odd"),
        ("token_sources", less, "does not tell of all"),
        ("token_sources", with_value("count", 1), "does not tell of all"),
        ("token_sources", with_value("count", 3), "not there"),
        ("token_shares", with_value("token", 2), "/token_shares tells of tokens that are not there"),
        ("token_shares", as_text("moved"), "no float"),
    ],
)
def test_a_damaged_table_is_told(file: h5py.File, name: str, change: Any, words: str) -> None:
    changed(file, name, change)
    with pytest.raises(ValueError, match=words):
        read_tokens(file)
