"""What quantisation costs a model, as a shard has it: stored like the texts of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.json_table import NO_TABLE, Read, pack_json, read_json
from aclcmp.labeling.shard.record import LabelRecord

PRICE = "price"
"""Its data id on the side ROWS."""


@dataclass(frozen=True, slots=True)
class LayerPrice:
    """What one quantised layer alone costs: the relative L2 by which it changes the logits."""

    layer: str
    logits: float


@dataclass(frozen=True, slots=True)
class Price:
    """What the quantisation of a checkpoint costs, measured on golden in float32: with it against without it."""

    scheme: str
    """ "W8A8"."""
    rounds_inputs: bool
    """Whether it rounds inputs, so that round-off before decides how they are rounded."""
    against: str
    """Without it means: the "original" weights, or the checkpoint's "own" with inputs that are not rounded."""
    logits: float
    """Relative L2 of the logits of all tokens."""
    tokens: int
    changed: int
    """Tokens of which another is the best."""
    layers: tuple[LayerPrice, ...] = ()
    """The dearest first; none where they were not measured."""
    layer_tokens: int = 0
    """Tokens on which layers were measured."""


def pack_price(price: Price) -> npt.NDArray[np.uint8]:
    """Return the stored bytes of a price."""
    return pack_json(asdict(price))


def _price(told: Any) -> Price:
    """Return what was stored. Raises ValueError, KeyError, TypeError or OverflowError for what is no price."""
    tokens, changed, layer_tokens = (int(np.int64(int(told[each]))) for each in ("tokens", "changed", "layer_tokens"))
    layers = tuple(LayerPrice(str(each["layer"]), float(each["logits"])) for each in told["layers"])
    return Price(
        str(told["scheme"]),
        bool(told["rounds_inputs"]),
        str(told["against"]),
        float(told["logits"]),
        tokens,
        changed,
        layers,
        layer_tokens,
    )


def read_price(records: Sequence[LabelRecord], read: Read) -> Price | None:
    """Return the price that a shard tells, the last of several; None where there is none that can be read."""
    found = None
    for record in records:
        if record.data_id == PRICE:
            with suppress(*NO_TABLE):
                found = _price(read_json(record, read))
    return found
