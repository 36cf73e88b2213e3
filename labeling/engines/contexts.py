"""The tokens of each request that a forward attends to: those of its prompt, and those that forwards computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aclcmp.labeling.engines.module_labels import say

MOST_REQUESTS = 4096
"""Requests that are remembered, the latest ones."""


@dataclass(frozen=True, slots=True)
class Context:
    """The tokens of one request that are in the cache after a forward."""

    request: str
    """Its name outside of the engine."""
    tokens: Sequence[int]
    """By position; empty where not all are known, so that its rows have no names."""
    first: int = 0
    """The first position that the forward computed."""


class Texts:
    """The tokens of requests, by what is known of their prompts and by the rows that forwards computed."""

    def __init__(self) -> None:
        self._tokens: dict[str, list[int]] = {}
        self._told = False

    def contexts(
        self,
        requests: Sequence[str],
        starts: Sequence[int],
        positions: Sequence[int],
        tokens: Sequence[int],
        prompts: Mapping[str, Sequence[int]],
    ) -> list[Context]:
        """Return the context of each request of a forward: its rows are those from one of the starts to the next."""
        found = []
        for request, begin, end in zip(requests, starts, starts[1:], strict=False):
            prompt, first = list(prompts.get(request, ())), positions[begin] if end > begin else 0
            text = self._tokens.pop(request, prompt)
            if text[: len(prompt)] != prompt:  # another request of this name
                text = prompt
            if first > len(text) or list(positions[begin:end]) != list(range(first, first + end - begin)):
                if not self._told:
                    say(f"not all tokens of request {request!r} are known: its KV cache is not labelled")
                self._told = True
                found.append(Context(request, ()))
                continue
            text[first : first + end - begin] = tokens[begin:end]
            self._tokens[request] = text
            found.append(Context(request, text[: first + end - begin], first))
        while len(self._tokens) > MOST_REQUESTS:
            self._tokens.pop(next(iter(self._tokens)))
        return found
