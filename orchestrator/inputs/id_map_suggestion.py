"""A suggestion of rules between two runs' label ids, as a file of patterns with its reasons in comments."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aclcmp.orchestrator.idmap.suggest import CERTAIN, Proposal, Suggestion
from aclcmp.orchestrator.inputs.id_map_file import quote_pattern, rule_text
from aclcmp.orchestrator.plan.id_rules import IdRule, JoinRule


def suggestion_text(suggestion: Suggestion, golden: str, actual: str, notes: Sequence[str] = ()) -> str:
    """Return a suggestion between two runs of these names as a file of patterns; the uncertain is commented out."""
    proposals: list[Proposal[IdRule] | Proposal[JoinRule]] = [*suggestion.joins, *suggestion.proposals]
    certain = sum(proposal.certain for proposal in proposals)
    lines = [
        "# golden-pattern -> actual-pattern; * is anything within a dotted part, ** across; the first match counts",
        "# - on one side drops what the other side matches; what no rule matches keeps its name",
        "# q | k -> qk: side by side along the last dimension; a + b -> c: summed; task:3 -> task:0: the same task",
        "# layers.{n+4} -> rank:1 layers.{n}: rank 1 counts its layers from 0, all ranks together from 4",
        f"# golden: {json.dumps(golden)}",
        f"# actual: {json.dumps(actual)}",
        f"# the same in both: {_count(suggestion.same, 'id')}; certain (score {CERTAIN} or more): "
        f"{_count(certain, 'rule')}; not certain and commented out, to be looked at: {len(proposals) - certain}",
        *(f"# {note}" for note in notes),
    ]
    for proposal in proposals:
        lines += ["", f"# {proposal.score:.2f}, {_count(proposal.labels, 'label')}: {'; '.join(proposal.reasons)}"]
        lines.append(("" if proposal.certain else "# ") + rule_text(proposal.rule))
    for side, ids in (("golden", suggestion.golden_only), ("actual", suggestion.actual_only)):
        if ids:
            lines += ["", f"# nothing found for {_count(len(ids), 'id')} of {side}:"]
            lines += [f"#   {quote_pattern(data_id)}" for data_id in ids]
    return "\n".join(lines) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
