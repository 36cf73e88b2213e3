"""How the margin between two tokens depends on the residual stream, by autograd through the original.

Let m be golden's logit of one token less that of another, and g the gradient of m with respect to the stream behind a
layer, at all positions up to the row of these logits. An error e of the stream there moves m by g · e to first order,
whatever later layers make of it. What a layer moves is that behind it less that before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from aclcmp.labeling.engines.points import is_layer

LOGITS = "lm_head"
_NEAR = 1e-3
"""Most that a layer's output may differ from the sum of its parts, of its size, to count as that sum."""


class Gradient(NamedTuple):
    """The gradient of a margin at one point of the stream."""

    name: str
    """The module whose end the point is."""
    labels: tuple[str, ...]
    """Labels whose sum is the stream there."""
    value: Any
    """Tensor of shape [rows, features]: the last rows of the text, up to that of the logits."""


@dataclass(slots=True)
class _Layer:
    """One call of a decoder layer: what it took and returned."""

    name: str
    module: Any
    args: tuple[Any, ...] = ()
    kwargs: Any = None
    output: Any = None


def margin_gradients(
    model: Any, tokens: Sequence[int], golden: int, actual: int, labels: Collection[str]
) -> list[Gradient]:
    """Return the gradients of the margin golden - actual behind a text, in the order in which the model computes.

    Only at points of which the labels of `labels` tell the stream; one layer at a time is computed again, so that no
    more than its intermediate results are in memory. [] for models whose stream is not that of decoder layers, each of
    which takes what the one before returns.
    """
    import torch

    layers = [_Layer(name, module) for name, module in model.named_modules() if is_layer(name)]
    if not layers:
        return []
    embedding = _name_of(model, model.get_input_embeddings())
    logits, embedded, stream, normed = _forward(model, tokens, layers, labels)
    if not torch.equal(embedded, _stream_into(layers[0])):
        embedding = ""
    if not all(torch.equal(one.output, _stream_into(two)) for one, two in pairwise(layers)):
        return []
    margin = logits[0, -1, golden] - logits[0, -1, actual]
    leaves = [stream, *(tensor for _, tensor in normed)]
    behind, *of_norms = torch.autograd.grad(margin, leaves, allow_unused=True)
    if behind is None:
        return []
    ends: list[Gradient] = [
        Gradient(name, (name,), value[0])
        for (name, _), value in zip(normed, of_norms, strict=True)
        if value is not None
    ]
    if LOGITS in labels:
        one_row = torch.zeros_like(logits[0, -1:])
        one_row[0, golden], one_row[0, actual] = 1.0, -1.0
        ends.append(Gradient(LOGITS, (LOGITS,), one_row))
    found = list(_through_layers(layers, behind, labels, embedding))
    return [*reversed(found), *ends]


def _forward(
    model: Any, tokens: Sequence[int], layers: Sequence[_Layer], labels: Collection[str]
) -> tuple[Any, Any, Any, list[tuple[str, Any]]]:
    """Run the model; return its logits, what it embeds, the stream behind the last layer, and norms behind that.

    The graph begins behind the last layer.
    """
    import torch

    last = layers[-1]
    leaf: list[Any] = []
    embedded: list[Any] = []
    normed: list[tuple[str, Any]] = []
    with ExitStack() as hooks:
        embedding = model.get_input_embeddings()
        hooks.callback(embedding.register_forward_hook(lambda _module, _args, out: embedded.append(out)).remove)
        for layer in layers:

            def after(_module: Any, args: Any, kwargs: Any, output: Any, layer: _Layer = layer) -> Any:
                layer.args, layer.kwargs = args, kwargs
                layer.output = first = _first(output).detach()
                if layer is not last:
                    return None
                leaf.append(first.requires_grad_())
                return (first, *output[1:]) if isinstance(output, tuple) else first

            hooks.callback(layer.module.register_forward_hook(after, with_kwargs=True).remove)
        for name in labels:
            beside = name.rpartition(".")[0] == last.name.rpartition(".")[0].rpartition(".")[0]
            if beside and "norm" in name.rpartition(".")[2]:

                def note(_module: Any, _args: Any, output: Any, name: str = name) -> None:
                    if output.requires_grad:  # behind the last layer
                        normed.append((name, output))

                hooks.callback(model.get_submodule(name).register_forward_hook(note).remove)
        parameters = [each for each in model.parameters() if each.requires_grad]
        for each in parameters:
            each.requires_grad_(False)
        try:
            with torch.enable_grad():
                logits = model(torch.tensor([tokens], device=model.device), use_cache=False).logits
        finally:
            for each in parameters:
                each.requires_grad_()
    return logits, embedded[0], leaf[0], normed


def _through_layers(
    layers: Sequence[_Layer], behind: Any, labels: Collection[str], embedding: str
) -> Iterator[Gradient]:
    """Yield the gradients behind each layer and within it, from the last layer on; `behind` is that behind the last.

    `embedding` is the module whose output the first layer takes, "" where that is none's.
    """
    for number in range(len(layers) - 1, -1, -1):
        layer = layers[number]
        before = layers[number - 1].name if number else embedding
        end = behind
        behind, halves, within = _through_layer(layer, end)
        split = within is not None and before != "" and before in labels and halves[0] in labels
        if layer.name in labels:
            yield Gradient(halves[1] if split else layer.name, (layer.name,), end[0])
        if split:
            yield Gradient(halves[0], (before, halves[0]), within[0])
    if embedding and embedding in labels:
        yield Gradient(embedding, (embedding,), behind[0])


def _through_layer(layer: _Layer, behind: Any) -> tuple[Any, tuple[str, ...], Any]:
    """Return the gradient before a layer, the names of its two halves, and the gradient between these.

    The latter is None where the layer is no sum of what it takes, its attention and its feed-forward part.
    """
    import torch

    taken = _stream_into(layer).detach().requires_grad_()
    args = (taken, *layer.args[1:]) if layer.args else ()
    kwargs = layer.kwargs if layer.args else layer.kwargs | {"hidden_states": taken}
    parts: dict[str, Any] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for name, module in layer.module.named_children():
            if name == "mlp" or ("att" in name and "norm" not in name):

                def after(_module: Any, _args: Any, output: Any, name: str = name) -> None:
                    parts[name] = _first(output)

                hooks.callback(module.register_forward_hook(after).remove)
        output = _first(layer.module(*args, **kwargs))
    halves = tuple(f"{layer.name}.{name}" for name in parts)
    between = []
    if len(parts) == 2 and halves[1].endswith(".mlp") and all(part.shape == taken.shape for part in parts.values()):
        attention, feed_forward = parts.values()
        off = output - taken - attention - feed_forward
        between = [attention] if off.norm() <= _NEAR * (output - taken).norm() else []
    before, *within = torch.autograd.grad(output, [taken, *between], behind)
    return before, halves, within[0] if within else None


def _name_of(model: Any, module: Any) -> str:
    return next((name for name, each in model.named_modules() if each is module), "")


def _stream_into(layer: _Layer) -> Any:
    """Return the stream that a layer took."""
    return layer.args[0] if layer.args else layer.kwargs["hidden_states"]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output
