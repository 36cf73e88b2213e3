"""Noise floors from earlier runs that were right: the usual errors of each kind of label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from aclcmp.orchestrator.core.evidence import Evidence, LabelEvidence
from aclcmp.orchestrator.core.floors import FIGURES, Floor, FloorSource, Profile, ProfileKey, Usual
from aclcmp.orchestrator.core.levels import Level, kind_in_layers
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import Judgement, Status


def profile_of(judgement: Judgement) -> dict[ProfileKey, Usual]:
    """Return the errors of all that matches or drifts, by kind (TAO, arXiv 2510.16028)."""
    errors: dict[ProfileKey, list[tuple[float, ...]]] = defaultdict(list)
    for label in judgement.labels:
        for verdict in label.ranks:
            good = verdict.status in (Status.MATCH, Status.DRIFT)
            if good and verdict.metrics is not None and np.isfinite(verdict.metrics.rel_l2):
                key = _key(label.key, label.level, verdict.dtypes, verdict.golden, verdict.actual)
                errors[key].append(tuple(getattr(verdict.metrics, name) for name in FIGURES))
    found = {}
    for key, each in errors.items():
        errors_of = np.quantile(np.array(each), 0.99, axis=0, method="higher").tolist()
        found[key] = Usual(**dict(zip(FIGURES, errors_of, strict=True)), measured=len(each))
    return found


def merge_profiles(profiles: Sequence[Profile]) -> dict[ProfileKey, Usual]:
    """Return one profile for several: of each kind the larger errors."""
    found: dict[ProfileKey, Usual] = {}
    for profile in profiles:
        for key, usual in profile.items():
            before = found.get(key, Usual(0.0, 0.0, 0))
            largest = {name: max(getattr(before, name), getattr(usual, name)) for name in FIGURES}
            found[key] = Usual(**largest, measured=before.measured + usual.measured)
    return found


def floors_from(profile: Profile, evidence: Evidence) -> dict[LabelKey, tuple[Floor, ...]]:
    """Return the floor of each label whose kind is in the profile: the largest of its ranks'."""
    found: dict[LabelKey, tuple[Floor, ...]] = {}
    for label in evidence.labels:
        usual = [profile[key] for key in _keys(label) if key in profile]
        if usual:
            largest = {name: max(getattr(each, name) for each in usual) for name in FIGURES}
            found[label.key] = (Floor(FloorSource.PROFILE, **largest),)
    return found


def _keys(label: LabelEvidence) -> set[ProfileKey]:
    compared = [each for each in label.ranks if each.stats is not None]
    return {_key(label.key, label.level, each.dtypes, each.golden, each.actual) for each in compared}


def _key(
    key: LabelKey, level: Level, dtypes: tuple[str, str], golden: SideFacts | None, actual: SideFacts | None
) -> ProfileKey:
    devices = [side.device.partition(":")[0] if side else "" for side in (golden, actual)]
    return ProfileKey(kind_in_layers(key.label, level.layer), *dtypes, devices[0], devices[1])
