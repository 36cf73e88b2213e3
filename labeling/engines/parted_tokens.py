"""Tokens with which an engine went on where golden prefers another, and what their margins depend on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from aclcmp.labeling.api import record_margin
from aclcmp.labeling.engines.margin_gradients import Gradient, margin_gradients
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.margin_table import Margin

_MOST_REQUESTS = 8
_MOST_BYTES = 1 << 30
"""Most that all gradients of a run may take."""


@dataclass(slots=True)
class PartedTokens:
    """By request the margins where its text parts, each with golden's margin; and the tokens of these requests."""

    margins: dict[str, list[tuple[Margin, float]]] = field(default_factory=dict)
    tokens: dict[str, Mapping[int, int]] = field(default_factory=dict)

    def add(self, request: str, tokens: Mapping[int, int], rows: Sequence[int], logits: Any) -> None:
        """Take golden's logits of a request, [tokens, vocabulary], in those of whose rows the engine chose a token."""
        rows = [row for row in rows if row + 1 in tokens]
        if not rows:
            return
        for row, best in zip(rows, logits[rows].argmax(dim=-1).tolist(), strict=True):
            taken = tokens[row + 1]
            if best != taken:
                size = float(logits[row, best] - logits[row, taken])
                self.margins.setdefault(request, []).append((Margin(request, row + 1, best, taken), size))
                self.tokens[request] = tokens

    def chosen(self) -> Iterator[Margin]:
        """Yield of the first requests where each parts first, and where golden prefers its own token most."""
        for margins in islice(self.margins.values(), _MOST_REQUESTS):
            first, (most, _) = margins[0][0], max(margins, key=lambda each: each[1])
            yield from dict.fromkeys((first, most))


def record_margins(model: Any, parted: PartedTokens, labels: Collection[str], say: Callable[[str], None]) -> None:
    """Record the gradients of margins by a model in float32, for the labels that both sides have."""
    room = _MOST_BYTES
    margins = list(parted.chosen())
    for number, margin in enumerate(margins, start=1):
        of_request = parted.tokens[margin.request]
        tokens = [of_request[position] for position in range(margin.position)]
        try:
            gradients = margin_gradients(model, tokens, margin.golden, margin.actual, labels)
        except Exception as error:  # a model that autograd cannot pass through has its labels all the same
            say(f"no layer is told for tokens that part: {type(error).__name__}: {error}"[:300])
            return
        if not gradients:
            return
        room -= sum(gradient.value.nbytes for gradient in gradients)
        if room < 0:
            say(
                f"of {len(margins)} tokens that part the layer is told for the first {number - 1}: their texts are long"
            )
            return
        record_margin(margin, gradient_points(margin, tokens, gradients))
        say(f"margin {number} of {len(margins)}: request {margin.request}, token {margin.position}")


def gradient_points(
    margin: Margin, tokens: Sequence[int], gradients: Sequence[Gradient]
) -> Iterator[tuple[str, Sequence[str], Any, Rows]]:
    """Yield what is recorded of each gradient: the point, its labels, the values and the names of their rows."""
    names: dict[int, Rows] = {}
    for name, labels, value in gradients:
        size = len(value)
        if size not in names:
            names[size] = Rows(margin.request, range(len(tokens) - size, len(tokens)), tokens[len(tokens) - size :])
        yield name, labels, value.float().cpu().numpy(), names[size]
