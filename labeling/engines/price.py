"""What quantisation costs: golden with it against golden without it, as a whole and for each layer alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aclcmp.labeling.engines.quantised import QuantisedLayer, quantised_only
from aclcmp.labeling.shard.price_table import LayerPrice, Price

LAYER_TOKENS = 256
"""Tokens on which layers are measured: each layer takes a forward over all of them."""


def measure_price(
    model: Any,
    layers: Mapping[str, QuantisedLayer],
    texts: Sequence[Sequence[int]],
    scheme: str,
    *,
    by_layer: bool,
    say: Callable[[str], None],
) -> Price | None:
    """Return the price of the quantised layers of a float32 model on texts, which are tokens.

    None where it cannot be measured: only weights are quantised, and what they were before is not known.
    """
    original = any(layer.original is not None for layer in layers.values())
    rounds = any(layer.scheme.inputs is not None for layer in layers.values())
    if not original and not rounds:
        return None
    difference, size, changed, tokens = 0.0, 0.0, 0, 0
    for text in texts:
        with quantised_only(layers, ()):
            without = _logits(model, text)
        of_all = _logits(model, text)
        difference += float((of_all - without).square().sum())
        size += float(without.square().sum())
        changed += int((of_all.argmax(-1) != without.argmax(-1)).sum())
        tokens += len(text)
    few = list(_first_tokens(texts, LAYER_TOKENS))
    found = _measure_layers(model, layers, few, say) if by_layer else []
    return Price(
        scheme,
        rounds,
        "original" if original else "own",
        _ratio(difference, size),
        tokens,
        changed,
        tuple(sorted(found, key=lambda each: -each.logits)),
        sum(map(len, few)) if by_layer else 0,
    )


def _measure_layers(
    model: Any, layers: Mapping[str, QuantisedLayer], texts: Sequence[Sequence[int]], say: Callable[[str], None]
) -> list[LayerPrice]:
    with quantised_only(layers, ()):
        without = [_logits(model, text) for text in texts]
    size = sum(float(each.square().sum()) for each in without)
    found = []
    for number, name in enumerate(layers, start=1):
        with quantised_only(layers, (name,)):
            off = sum(
                float((_logits(model, text) - known).square().sum()) for text, known in zip(texts, without, strict=True)
            )
        found.append(LayerPrice(name, _ratio(off, size)))
        say(f"price: layer {number} of {len(layers)}, {name}")
    return found


def _first_tokens(texts: Sequence[Sequence[int]], most: int) -> Iterator[Sequence[int]]:
    """Yield texts, the last one cut, of so many tokens together."""
    for text in texts:
        if most > 0:
            yield text[:most]
        most -= len(text)


def _logits(model: Any, text: Sequence[int]) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([list(text)]), use_cache=False).logits[0].double()


def _ratio(difference: float, size: float) -> float:
    return (difference / size) ** 0.5 if size else 0.0
