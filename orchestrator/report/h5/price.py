"""What quantisation costs in report.h5, written and read again.

/price                group, absent where golden is not quantised: scheme, rounds_inputs, against, logits, tokens,
                      changed, layer_tokens
/price/layers         table: layer, logits
"""

from __future__ import annotations

import h5py

from aclcmp.labeling.shard.hdf5_types import decode_text
from aclcmp.labeling.shard.price_table import LayerPrice, Price
from aclcmp.orchestrator.report.h5.primitives import Columns, own_group, read_table, write_attributes, write_table


def write_price(file: h5py.File, price: Price | None) -> None:
    """Write what quantisation costs."""
    if price is None:
        return
    group = file.create_group("price")
    write_attributes(group, {"scheme": price.scheme, "rounds_inputs": price.rounds_inputs, "against": price.against})
    write_attributes(group, {"logits": price.logits, "tokens": price.tokens, "changed": price.changed})
    write_attributes(group, {"layer_tokens": price.layer_tokens})
    layers: Columns = {
        "layer": (str, [each.layer for each in price.layers]),
        "logits": (float, [each.logits for each in price.layers]),
    }
    write_table(group, "layers", layers)


def read_price(file: h5py.File) -> Price | None:
    """Read what `write_price` wrote; None where there is nothing. Raises KeyError, TypeError or ValueError."""
    if "price" not in file:
        return None
    group = own_group(file, "price")
    told = group.attrs
    layers = tuple(LayerPrice(str(row["layer"]), float(row["logits"])) for row in read_table(group, "layers"))
    return Price(
        decode_text(told["scheme"]),
        bool(told["rounds_inputs"]),
        decode_text(told["against"]),
        float(told["logits"]),
        int(told["tokens"]),
        int(told["changed"]),
        layers,
        int(told["layer_tokens"]),
    )
