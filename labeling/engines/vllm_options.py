"""Options of vLLM that set how it compiles, in all spellings that its parser takes."""

from __future__ import annotations

import re

_LONG = ("--compilation-config", "--optimization-level", "--enforce-eager", "--no-enforce-eager")
_SHORTEST = len("--compi")
"""Abbreviations of these options are longer; shorter ones are those of others too."""


def sets_compilation(option: str) -> bool:
    """Tell whether an option sets compilation: -O3, -cc.mode=3, --compilation_config, --enforce."""
    name = re.split(r"[.=]", option, maxsplit=1)[0].replace("_", "-")
    is_long = len(name) >= _SHORTEST and any(each.startswith(name) for each in _LONG)
    return is_long or name == "-cc" or name.startswith("-O")
