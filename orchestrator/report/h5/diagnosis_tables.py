"""Second looks, patterns and hints in report.h5, written and read again without loss.

/looks/LABEL, rank N  NXdata: sums of d^2 and x^2 by channel, of one (label, rank) that does not match;
                      number, task, label, occurrence, rank, channels_per_group
.../histogram         NXdata: number of errors by power of two of golden's root mean square
.../nonfinite_rows, .../nonfinite_channels  NXdata, where there are any: number of positions by row or
                      channel that are not finite on one side alone; per_group
/looks/00000/worst_row  NXdata, where it was read: golden's and actual's values around the place where the worst row is
                      off most, by channel; whole_shape, row (its place along all other axes)
/fits                 table: number of the look, kind, words, explained; in the order of the look
/patterns             table: task, label, occurrence, and in words ranks, rows, channels
/patterns_by_rank     table: number of the pattern, rank, share of the error energy
/hints                table: task, label, occurrence, ranks (by commas), kind, words, explained
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from aclcmp.labeling.shard.hdf5_types import decode_text
from aclcmp.orchestrator.core.diagnosis import (
    HISTOGRAM_BINS,
    HISTOGRAM_LOWEST,
    ChannelSums,
    Counts,
    Fit,
    Hint,
    Look,
    Pattern,
    WorstRow,
)
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.report.h5.primitives import (
    Columns,
    link_name,
    own_dataset,
    own_group,
    read_table,
    write_attributes,
    write_nxdata,
    write_table,
)

Looks = Mapping[tuple[LabelKey, int], Look]
_PATTERN_WORDS = ("ranks", "rows", "channels")


def write_looks(file: h5py.File, looks: Looks, patterns: Sequence[Pattern], hints: Sequence[Hint]) -> None:
    """Write what a second look found, and what follows from it; groups and tables may be empty."""
    group = file.create_group("looks", track_order=True)
    for number, ((key, rank), look) in enumerate(looks.items()):
        _write_look(group, number, key, rank, look)
    fits = [(number, fit) for number, look in enumerate(looks.values()) for fit in look.fits]
    write_table(
        file,
        "fits",
        {
            "look": (int, [number for number, _ in fits]),
            "kind": (str, [fit.kind for _, fit in fits]),
            "words": (str, [fit.words for _, fit in fits]),
            "explained": (float, [fit.explained for _, fit in fits]),
        },
    )
    words: dict[str, Any] = {name: (str, [getattr(each, name) for each in patterns]) for name in _PATTERN_WORDS}
    write_table(file, "patterns", {**_keys([pattern.key for pattern in patterns]), **words})
    shares = [(number, *item) for number, pattern in enumerate(patterns) for item in pattern.by_rank.items()]
    write_table(
        file,
        "patterns_by_rank",
        {
            "pattern": (int, [number for number, _, _ in shares]),
            "rank": (int, [rank for _, rank, _ in shares]),
            "share": (float, [share for _, _, share in shares]),
        },
    )
    found: Columns = {
        "ranks": (str, [",".join(map(str, hint.ranks)) for hint in hints]),
        "kind": (str, [hint.kind for hint in hints]),
        "words": (str, [hint.words for hint in hints]),
        "explained": (float, [hint.explained for hint in hints]),
    }
    write_table(file, "hints", {**_keys([hint.key for hint in hints]), **found})


def read_looks(
    file: h5py.File,
) -> tuple[dict[tuple[LabelKey, int], Look], tuple[Pattern, ...], tuple[Hint, ...]]:
    """Read what `write_looks` wrote; nothing from a report.h5 without it.

    Raises KeyError, TypeError or ValueError for a file that is not as it was written.
    """
    if "looks" not in file:
        return {}, (), ()
    fits: dict[int, list[Fit]] = defaultdict(list)
    for row in read_table(file, "fits"):
        fits[row["look"]].append(Fit(row["kind"], row["words"], row["explained"]))
    looks = dict(_read_look(own_group(file, "looks"), name, fits, place) for place, name in enumerate(file["looks"]))
    by_rank: dict[int, dict[int, float]] = defaultdict(dict)
    for row in read_table(file, "patterns_by_rank"):
        by_rank[row["pattern"]][row["rank"]] = row["share"]
    patterns = tuple(
        Pattern(_key(row), by_rank[number], **{name: row[name] for name in _PATTERN_WORDS})
        for number, row in enumerate(read_table(file, "patterns"))
    )
    hints = tuple(
        Hint(_key(row), tuple(map(int, row["ranks"].split(","))), row["kind"], row["words"], row["explained"])
        for row in read_table(file, "hints")
    )
    return looks, patterns, hints


def _write_look(parent: h5py.Group, number: int, key: LabelKey, rank: int, look: Look) -> None:
    channels = look.channels
    what = f"{key.label}, task {key.task}, rank {rank}"
    sums = {"sum_dd": channels.sum_dd, "sum_xx": channels.sum_xx}
    places = {"channel_group": channels.index}
    large = len(channels.index) > HISTOGRAM_BINS
    name = link_name(parent, key, rank)
    group = write_nxdata(parent, name, f"Error energy by channel: {what}", sums, places, pack=large)
    write_attributes(group, {"task": key.task, "label": key.label, "occurrence": key.occurrence, "rank": rank})
    write_attributes(group, {"channels_per_group": channels.group, "number": number})
    lowest = np.arange(HISTOGRAM_LOWEST, HISTOGRAM_LOWEST + HISTOGRAM_BINS)
    write_nxdata(group, "histogram", f"Errors by size: {what}", {"count": look.histogram}, {"log2_of_rms": lowest})
    for noun, counts in (("row", look.nonfinite_rows), ("channel", look.nonfinite_channels)):
        if counts.index.size:
            named, axes = f"Values that are not finite by {noun}: {what}", {f"{noun}_group": counts.index}
            made = write_nxdata(group, f"nonfinite_{noun}s", named, {"count": counts.count}, axes)
            write_attributes(made, {"per_group": counts.group})
    if (line := look.worst_row) is not None:
        axes = {"channel": np.arange(line.start, line.start + len(line.golden))}
        values = {"golden": line.golden, "actual": line.actual}
        made = write_nxdata(group, "worst_row", f"Values of the worst row: {what}", values, axes)
        places = {"whole_shape": np.array(line.whole_shape, "i8"), "row": np.array(line.row, "i8")}
        write_attributes(made, places)


def _read_look(
    parent: h5py.Group, name: str, fits: Mapping[int, Sequence[Fit]], place: int
) -> tuple[tuple[LabelKey, int], Look]:
    group = own_group(parent, name)
    found = tuple(fits.get(int(group.attrs.get("number", place)), ()))  # older reports have them in order
    index, sum_xx, sum_dd = (own_dataset(group, each)[:] for each in ("channel_group", "sum_xx", "sum_dd"))
    channels = ChannelSums(int(group.attrs["channels_per_group"]), index, sum_xx, sum_dd)
    histogram = own_dataset(own_group(group, "histogram"), "count")[:]
    rows, columns = _read_counts(group, "row"), _read_counts(group, "channel")
    look = Look(channels, histogram, found, rows, columns, _read_worst_row(group))
    return (_key(group.attrs), int(group.attrs["rank"])), look


def _read_worst_row(parent: h5py.Group) -> WorstRow | None:
    if "worst_row" not in parent:
        return None
    group = own_group(parent, "worst_row")
    golden, actual, channel = (own_dataset(group, each)[:] for each in ("golden", "actual", "channel"))
    shape, row = (tuple(map(int, group.attrs[name])) for name in ("whole_shape", "row"))
    if golden.shape != actual.shape or golden.ndim != 1 or not golden.size:
        raise ValueError("a worst row has not the same values on both sides")
    return WorstRow(shape, row, int(channel[0]), golden, actual)


def _read_counts(parent: h5py.Group, noun: str) -> Counts:
    if f"nonfinite_{noun}s" not in parent:
        return Counts.empty()
    group = own_group(parent, f"nonfinite_{noun}s")
    index, count = (own_dataset(group, each)[:] for each in (f"{noun}_group", "count"))
    return Counts(int(group.attrs["per_group"]), index, count)


def _keys(keys: Sequence[LabelKey]) -> Columns:
    return {
        "task": (int, [key.task for key in keys]),
        "label": (str, [key.label for key in keys]),
        "occurrence": (int, [key.occurrence for key in keys]),
    }


def _key(row: Mapping[str, Any]) -> LabelKey:
    return LabelKey(int(row["task"]), decode_text(row["label"]), int(row["occurrence"]))
