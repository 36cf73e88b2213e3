"""What quantisation costs, in sentences."""

from __future__ import annotations

from aclcmp.labeling.shard.price_table import Price
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import count, figure

_MOST = 4
"""Layers that are named; report.json has all."""
_AGAINST = {
    "original": "beside the original weights",
    "own": "beside the same weights with inputs that are not rounded",
}


def price_lines(report: Report) -> list[str]:
    """Return what the quantisation of golden's checkpoint costs; [] where golden is not quantised."""
    price = report.price
    if price is None:
        return []
    changed = f"{price.changed:,} of {count(price.tokens, 'token')} another"
    line = f"Price of quantisation ({price.scheme}): final logits {figure(price.logits)}, {changed}, "
    return [f"{line}{_AGAINST.get(price.against, 'beside ' + price.against)}{_layers(price)}."]


def _layers(price: Price) -> str:
    if not price.layers:
        return ""
    named = ", ".join(f"{each.layer} {figure(each.logits)}" for each in price.layers[:_MOST])
    more = len(price.layers) - _MOST
    rest = f", {more:,} more up to {figure(price.layers[_MOST].logits)}" if more > 0 else ""
    return f"; each layer alone, on {count(price.layer_tokens, 'token')}: most from {named}{rest}"
