"""Checks of what `aclcmp check` and `aclcmp golden` are given, before anything is started."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from aclcmp.orchestrator.errors import UsageError

_MOST_BYTES = 16 << 20
_INSTALL = {"vllm": "pip install vllm"}


def check_model(model: Path) -> dict[str, object]:
    """Return the configuration of a model folder. Raises UsageError for what is none."""
    path = model / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{model} is no model folder: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path} is no configuration of a model")
    return config


def check_ranks(model: Path, ranks: int) -> None:
    """Raise UsageError where the heads of a model cannot be split over so many ranks."""
    heads = check_model(model).get("num_attention_heads")
    if isinstance(heads, int) and heads > 0 and heads % ranks:
        fit = ", ".join(str(number) for number in range(1, heads + 1) if heads % number == 0)
        raise UsageError(f"--ranks {ranks}: the {heads} attention heads of {model.name} can be split over {fit} ranks")


def check_prompts(prompts: Path) -> int:
    """Return the number of prompts in a file, one a line. Raises UsageError where there are none."""
    try:
        content = prompts.read_bytes()
    except OSError as error:
        raise UsageError(f"--prompts {prompts}: {error.strerror}") from None
    try:
        lines = [line for line in content[:_MOST_BYTES].decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UsageError(f"--prompts {prompts} is no text in UTF-8; give one prompt a line") from None
    if len(content) > _MOST_BYTES or "\0" in "".join(lines):
        raise UsageError(f"--prompts {prompts} is no text of prompts, or has more than 16 MiB")
    if not lines:
        raise UsageError(f"--prompts {prompts} is empty; give one prompt a line")
    return len(lines)


def check_engine(engine: str) -> None:
    """Raise UsageError where an engine is not installed in this Python."""
    if find_spec(engine) is None:
        raise UsageError(f"--engine {engine} is not installed here: {_INSTALL[engine]}")
