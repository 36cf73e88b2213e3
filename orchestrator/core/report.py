"""The model from which every report is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aclcmp.labeling.shard.price_table import Price
from aclcmp.orchestrator.core.diagnosis import Hint, Look, Pattern
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.core.verdicts import Judgement

SCHEMA = 1
"""Version of report.json and report.h5; counted up when a reader of the older one would be misled."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer for a run, with what is needed to understand it later."""

    run: RunRecord | None
    """None when two folders of dumps were compared that no run of ours made."""
    run_id: str
    judgement: Judgement
    policy: Mapping[str, str | float]
    """The limits that were used, as a flat table, e.g. {"name": "default", "float32.fail": 1e-3}."""
    notes: tuple[str, ...] = ()
    """Sentences for people: what was inferred, what was left out."""
    patterns: tuple[Pattern, ...] = ()
    """Of labels that are wrong by themselves, in golden order."""
    hints: tuple[Hint, ...] = ()
    looks: Mapping[tuple[LabelKey, int], Look] = field(default_factory=dict)
    """What a second look found, by label and rank, of labels that do not match."""
    order: str = "calls"
    """What golden order rests on: "calls" as they were recorded, "times" of files, or "names"; "none": labels were not
    computed from each other, and each is judged by itself."""
    token_texts: Mapping[int, str] = field(default_factory=dict)
    """The text of tokens, as far as it was recorded."""
    price: Price | None = None
    """What quantisation costs golden, if it is quantised."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """What was compared besides the run's own folder: "golden" and "actual" side, "map" of ids, "layouts" file."""
