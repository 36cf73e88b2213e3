"""The options of the command line for judging a run: the policy, and where noise floors come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from aclcmp.orchestrator.core.floors import REPEATS, FloorSource, Profile
from aclcmp.orchestrator.core.job import parse_second_look
from aclcmp.orchestrator.errors import FailOn, UsageError
from aclcmp.orchestrator.judge.policy import Policy


@dataclass(frozen=True, slots=True)
class JudgingOptions:
    """The policy, the source of noise floors, and the time of the second look."""

    policy: Policy
    again: FloorSource | None = None
    """Run the command a second time, to measure golden against golden."""
    repeat: Path | None = None
    """A run directory of the same script, to measure golden against golden."""
    profile: Profile | None = None
    second_look: float | None = None
    """Seconds in which what does not match is looked at again; None: a share of the comparison's."""
    options: tuple[str, ...] = ()
    """The same as options of `aclcmp compare`, without `again`, for it cannot run a command."""


def read_judging_options(
    policy: Path | None, fail_on: FailOn | None, floor: str | None, second_look: str | None = None
) -> JudgingOptions:
    """Read the files that the options name. Raises UsageError where one is absent or not what it should be."""
    chosen = Policy()
    options: tuple[str, ...] = ()
    if policy is not None:
        from aclcmp.orchestrator.inputs.policy_file import read_policy

        chosen, options = read_policy(policy), ("--policy", str(policy))
    if fail_on is not None:
        chosen = replace(chosen, fail_on=fail_on)
        options += ("--fail-on", fail_on.value)
    seconds = None
    if second_look is not None:
        try:
            seconds = parse_second_look(second_look)
        except ValueError as error:
            raise UsageError(f"--second-look: {error}") from None
        options += ("--second-look", second_look)
    terms = JudgingOptions(chosen, second_look=seconds, options=options)
    if floor is None:
        return terms
    if floor in REPEATS:
        return replace(terms, again=REPEATS[floor])
    terms = replace(terms, options=(*options, "--floor", floor))
    path = Path(floor)
    if path.is_dir():
        return replace(terms, repeat=path)
    if not path.exists():
        words = f"--floor {floor} is neither {' nor '.join(REPEATS)}, nor a profile or a run directory that exists"
        raise UsageError(f"{words}; `aclcmp report RUN --save-floor FILE` writes a profile")
    from aclcmp.orchestrator.report.h5.profile import read_profile

    return replace(terms, profile=read_profile(path))
