"""The turns of a dialogue: the token ids that both models read, and how a token is shown to the user."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

QUESTIONS = ("Which city is the capital of France, and which river runs through it?", "And of Germany?")
FIRST_TOKENS = 24
LATER_TOKENS = 12


@dataclass(frozen=True, slots=True)
class Dialogue:
    """`prompts` holds the new token ids of each turn; `spell` writes a token id the way the user should read it."""

    prompts: tuple[list[int], ...]
    spell: Callable[[int], str]


def random_dialogue(*, turns: int, vocabulary: int, seed: int) -> Dialogue:
    """Return prompts of random token ids below `vocabulary`, equal on all ranks."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [FIRST_TOKENS] + [LATER_TOKENS] * (turns - 1)
    prompts = (torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths)
    return Dialogue(tuple(prompts), str)


def spoken_dialogue(path: Path, *, turns: int) -> Dialogue:
    """Return questions as the tokenizer in the folder `path` encodes them."""
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    prompts = (tokenizer(QUESTIONS[turn % len(QUESTIONS)])["input_ids"] for turn in range(turns))
    return Dialogue(tuple(prompts), lambda token: repr(tokenizer.decode([token])))
