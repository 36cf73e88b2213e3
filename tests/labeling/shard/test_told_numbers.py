"""JSON of a shard may have numbers that are none: what has them is left out, and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aclcmp.labeling.shard.margin_table import GRADIENT, MARGIN, read_margin_tables
from aclcmp.labeling.shard.price_table import PRICE, Price, pack_price, read_price
from aclcmp.labeling.shard.record import GRADIENTS, ROWS, WEIGHTS, LabelRecord
from aclcmp.labeling.shard.row_table import REQUESTS, TOKENS, read_row_tables, read_token_texts
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.labeling.shard.weight_table import HASHES, PARAMETERS, read_weight_tables
from tests.recorded import recorder_of

NO_NUMBER = float("inf")
ENDLESS = 10**400


def stored(side: str, *contents: tuple[str, Any]) -> tuple[list[LabelRecord], Any]:
    """Return records with JSON, and what reads them."""
    records = [
        LabelRecord(0, name, 0, side, seq, 0.0, "", shape=(1, 1), offset=0, rows=0)
        for seq, (name, _) in enumerate(contents)
    ]
    return records, lambda record: np.frombuffer(json.dumps(contents[record.seq][1]).encode(), np.uint8)


@pytest.mark.parametrize("number", [NO_NUMBER, ENDLESS])
def test_a_price_of_no_number(number: float) -> None:
    price = Price("W8A8", True, "own", 0.1, 3, 1)
    told = json.loads(pack_price(price).tobytes())
    assert read_price(*stored(ROWS, (PRICE, told))) == price
    for name in ("logits", "tokens", "changed", "layer_tokens") if number == ENDLESS else ("tokens", "changed"):
        assert read_price(*stored(ROWS, (PRICE, told | {name: number}))) is None
        assert read_price(*stored(ROWS, (PRICE, told), (PRICE, told | {name: number}))) == price


def test_a_margin_of_no_number() -> None:
    right = ["a", 5, 11, 30], [["layer", ["layer"], 0]]
    for told in ([["a", NO_NUMBER, 11, 30], right[1]], [right[0], [["layer", ["layer"], NO_NUMBER]]]):
        records, read = stored(GRADIENTS, (GRADIENT, None), (MARGIN, told), (MARGIN, right))
        assert len(list(read_margin_tables(records, read))) == 1


def test_names_of_rows_of_no_number() -> None:
    for told in ({"number": NO_NUMBER, "request": [0, "a"], "prompt": []}, {"number": 0, "request": [NO_NUMBER, "a"]}):
        assert read_row_tables(*stored(ROWS, (REQUESTS, told))) == {}
    assert read_token_texts(*stored(ROWS, (TOKENS, [[NO_NUMBER, "a"]]), (TOKENS, [[3, "b"]]))) == {3: "b"}


def test_weights_of_no_number() -> None:
    facts = {"name": "w", "dtype": "float32", "module": "Linear", "label": "", "problem": "", "shape": [NO_NUMBER]}
    told = {"side": "acl", "hashes": 0, "packed": {}, "parameters": [facts | {"forms": []}]}
    assert list(read_weight_tables(*stored(WEIGHTS, (HASHES, []), (PARAMETERS, told)))) == []


def test_a_price_that_is_damaged_is_told(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path)
    recorder.record_price(Price("W8A8", True, "own", 0.1, 3, 1))
    recorder.close()
    (files,) = shards_in(tmp_path)
    assert read_shard(files).notes == ()
    (file,) = tmp_path.glob("*.h5")
    file.write_bytes(file.read_bytes().replace(b'"scheme": "W8A8"', b'"scheme": "W4A8"'))
    index = read_shard(files)
    assert index.price is None and "what quantisation costs is lost" in index.notes[0]
