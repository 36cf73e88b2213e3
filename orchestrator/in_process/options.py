"""Options of a comparison inside the user's process, as the user gave them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.id_map_file import read_map
from aclcmp.orchestrator.inputs.layout_file import read_layouts
from aclcmp.orchestrator.inputs.policy_file import policy_of, read_policy
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.plan.id_rules import IdMap
from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES, LayoutRules

FilePath = str | os.PathLike[str]
PolicySource = FilePath | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """How to judge, which ids and layouts to take, and the files that say so."""

    judging: JudgingOptions
    ids: IdMap | None
    layouts: LayoutRules
    paths: Mapping[str, str]


def read_options(policy: PolicySource | None, map: FilePath | None, layouts: FilePath | None) -> Options:
    """Read the files. Raises UsageError where one is absent or not what it should be."""
    files = {name: Path(path).absolute() for name, path in (("map", map), ("layouts", layouts)) if path is not None}
    return Options(
        JudgingOptions(_policy(policy)),
        read_map(files["map"]) if "map" in files else None,
        read_layouts(files["layouts"]) if "layouts" in files else NO_RULES,
        {name: str(path) for name, path in files.items()},
    )


def _policy(source: PolicySource | None) -> Policy:
    if source is None:
        return Policy()
    if isinstance(source, Mapping):
        return policy_of(source, "policy", "given")
    if isinstance(source, (str, os.PathLike)):
        return read_policy(Path(source))
    raise UsageError(f"policy is a {type(source).__name__}; give a policy file (TOML), or a dict of the same words")
