"""Names of parameters: their layers' numbers, and how they are told beside each other."""

from __future__ import annotations

import functools
from collections.abc import Sequence


@functools.cache
def numbers_of(name: str) -> tuple[int, ...]:
    """Return the numbers among the parts of a dotted name: those of its layer, and of its expert."""
    return tuple(int(part) for part in name.split(".") if part.isdecimal())


@functools.cache
def template_of(name: str) -> str:
    """Return the name without its numbers: equal for the parameters that layers have in common."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


@functools.cache
def of_any_layer(name: str) -> str:
    """Return the name without its first number: equal for one module of all layers, be it one of a sequence."""
    parts = name.split(".")
    first = next((place for place, part in enumerate(parts) if part.isdecimal()), len(parts))
    return ".".join("*" if place == first else part for place, part in enumerate(parts))


@functools.cache
def shift_of(name: str, golden: str) -> tuple[tuple[str, int], ...]:
    """Return golden's numbers as seen from a name: how far they are from its own, or what they are beyond these."""
    own, other = numbers_of(name), numbers_of(golden)
    return tuple(("+", n - own[i]) if i < len(own) else ("=", n) for i, n in enumerate(other))


@functools.cache
def shifted(template: str, name: str, shift: tuple[tuple[str, int], ...]) -> str:
    """Return the name of golden's parameter that a template and `shift_of` mean for a name."""
    own = iter(numbers_of(name))
    numbers = iter([next(own, 0) + number if kind == "+" else number for kind, number in shift])
    return ".".join(str(next(numbers, "*")) if part == "*" else part for part in template.split("."))


def module_of(name: str) -> str:
    """Return the name of the module that a parameter belongs to."""
    return name.rpartition(".")[0]


def short_name(name: str, golden: str) -> str:
    """Return golden's name as it is told beside a name: without what both begin with, where no number is left."""
    own, parts = module_of(name).split("."), golden.removesuffix(".weight").split(".")
    same = 0
    while same < min(len(own), len(parts) - 1) and own[same] == parts[same]:
        same += 1
    rest = parts[same:]
    left = [part for part in own[same:] if part.isdecimal()]
    return golden.removesuffix(".weight") if left or not same else ".".join(rest)


def fold_layers(names: Sequence[str]) -> str:
    """Return names that differ in one number as one: "model.layers.{0-29}.mlp"; else the first, and how many more."""
    split = [name.split(".") for name in names]
    differ = [i for i in range(len(split[0])) if len({parts[i] for parts in split if len(parts) > i}) > 1]
    if len(names) == 1 or len(differ) != 1:
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
    place = differ[0]
    numbers = sorted(int(parts[place]) for parts in split)
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    folded = ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
    return ".".join(f"{{{folded}}}" if i == place else part for i, part in enumerate(split[0]))
