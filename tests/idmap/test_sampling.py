"""What is looked at of labels' values in files: however they are split over ranks, and whatever cannot be read."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.layout import Layout, Partial, Shard, layout_of
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.labeling.shard.summarise import summarise
from aclcmp.orchestrator.compare.kernels.memory_map import MappedBits, open_bits
from aclcmp.orchestrator.core.regions import Source
from aclcmp.orchestrator.idmap import sampling
from aclcmp.orchestrator.idmap.candidates import labels_by_rank
from aclcmp.orchestrator.idmap.sampling import Signatures, sample_values
from aclcmp.orchestrator.idmap.signatures import AGREE, DIFFER, FEW, distances

Array = npt.NDArray[Any]
Rank = Mapping[str, Array]
"""A rank's labels in order."""

LARGE, SMALL = (8, 16, 512), (8, 4, 24)
assert np.prod(LARGE) > FEW > np.prod(SMALL)


def stored(
    folder: Path, side: str, *ranks: Rank, dtype: str = "float32", layout: Layout | None = None
) -> list[ShardIndex]:
    """Write a run and read its index."""
    folder.mkdir()
    for rank, labels in enumerate(ranks):
        writer = ShardWriter(folder, ShardHeader("run", rank, len(ranks), rank, 0, "here", 1, 0.0))
        for number, (name, value) in enumerate(labels.items()):
            record = LabelRecord(0, name, 0, side, number, float(number), "f.py:1", dtype, value.shape, layout=layout)
            writer.add(record, np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        writer.close()
    return [read_shard(files) for files in shards_in(folder)]


def whole(seed: int = 0, shape: tuple[int, ...] = LARGE) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def looked(golden: list[ShardIndex], actual: list[ShardIndex]) -> tuple[Signatures, Signatures]:
    steps = []
    views = sample_values(labels_by_rank(golden, "pta"), labels_by_rank(actual, "acl"), lambda: steps.append(1))
    assert len(steps) == len(labels_by_rank(golden, "pta")) + len(labels_by_rank(actual, "acl"))
    return views


def apart(views: tuple[Signatures, Signatures], golden: str = "x", actual: str = "y") -> float:
    return float(distances([views[0].get(golden, ())], [views[1].get(actual, ())])[0, 0])


@pytest.mark.parametrize("shape", [LARGE, SMALL])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("ranks", [(1, 4), (4, 1), (2, 4), (4, 4)])
def test_slices_are_seen_as_the_whole(tmp_path: Path, shape: tuple[int, ...], dim: int, ranks: tuple[int, int]) -> None:
    sides = []
    for side, count, seeds in (("pta", ranks[0], (0, 1)), ("acl", ranks[1], (0, 2))):
        names = ("x", "other x") if side == "pta" else ("y", "other y")
        cut = [np.split(whole(seed, shape), count, axis=dim) for seed in seeds]
        rank_labels = [dict(zip(names, parts, strict=True)) for parts in zip(*cut, strict=True)]
        sides.append(stored(tmp_path / side, side, *rank_labels))
    views = looked(*sides)
    assert apart(views) < 1e-6
    assert all(apart(views, *names) > DIFFER for names in (("x", "other y"), ("other x", "y"), ("other x", "other y")))


@pytest.mark.parametrize("shape", [LARGE, SMALL])
def test_uneven_slices_replicas_and_dimensions_of_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    value = whole(0, shape)
    golden = stored(tmp_path / "g", "pta", *({"x": part} for part in np.split(value, [1, 6], axis=0)))
    actual = stored(tmp_path / "a", "acl", *({"y": value[None]} for _ in range(3)))
    assert apart(looked(golden, actual)) < 1e-6


def test_told_layouts_and_sums_over_ranks(tmp_path: Path) -> None:
    value = whole()
    golden = stored(tmp_path / "g", "pta", {"x": value})
    summands = [{"y": (value * share).astype(np.float32)} for share in (0.5, 2.0, -1.5)]
    summed = stored(tmp_path / "s", "acl", *summands, layout=layout_of(Partial()))
    assert apart(looked(golden, summed)) < 1e-5
    parts = [{"y": part} for part in np.split(value, 4, axis=1)]
    told = stored(tmp_path / "t", "acl", *parts, layout=layout_of(Shard(-2)))
    assert apart(looked(golden, told)) < 1e-6


def test_groups_of_ranks(tmp_path: Path) -> None:
    """Two data-parallel groups of four tensor-parallel ranks; the second has a batch of its own."""
    golden = stored(tmp_path / "g", "pta", {"x": whole()})
    ranks = [{"y": part} for seed in (0, 1) for part in np.split(whole(seed), 4, axis=2)]
    assert apart(looked(golden, stored(tmp_path / "a", "acl", *ranks))) < 1e-6


NUMPY = {"bfloat16": ml_dtypes.bfloat16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2}


@pytest.mark.parametrize("shape", [LARGE, SMALL])
@pytest.mark.parametrize("dtype", [name for name in DTYPES if "fnu" not in name and "uint" not in name])
def test_element_types(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    value, other = whole(0, shape) * 10, whole(1, shape) * 10
    if dtype.startswith("complex"):
        value, other = value + 1j * other, other - 3j * value
    if dtype == "complex32":
        halves = [np.stack([each.real, each.imag], axis=-1).astype(np.float16) for each in (value, other)]
        cast = [each.view(DTYPES[dtype].memory)[..., 0] for each in halves]
    else:
        cast = [each.astype(NUMPY.get(dtype) or np.dtype(dtype)) for each in (value, other)]
    wide = next(name for name in ("complex128", "float64", "int64", "bool") if DTYPES[name].kind is DTYPES[dtype].kind)
    widened = (value if dtype == "complex32" else cast[0]).astype(wide)
    golden = stored(tmp_path / "g", "pta", {"x": widened}, dtype=wide)
    ranks = [dict(zip("yz", parts, strict=True)) for parts in zip(*(np.split(c, 2) for c in cast), strict=True)]
    actual = stored(tmp_path / "a", "acl", *ranks, dtype=dtype)
    views = looked(golden, actual)
    if dtype == "bool":
        assert views == ({}, {})
        return
    assert apart(views) < AGREE and apart(views, "x", "z") > DIFFER


def test_what_cannot_be_read_has_no_view(tmp_path: Path) -> None:
    small = whole(0, SMALL)
    golden = stored(tmp_path / "g", "pta", {"x": small, "gone": small, "constant": 0 * small, "one": small[:1, :1, :4]})
    actual = stored(tmp_path / "a", "acl", {"x": small, "y": small})
    views = looked(golden, actual)
    assert set(views[0]) == {"x", "gone"} and set(views[1]) == {"x", "y"}
    (index,) = golden
    failed = [replace(r, error="no room", offset=None) if r.data_id == "gone" else r for r in index.records]
    assert set(looked([replace(index, records=tuple(failed))], actual)[0]) == {"x"}
    missing = [replace(r, segment=9) if r.data_id == "gone" else r for r in index.records]
    assert set(looked([replace(index, records=tuple(missing))], actual)[0]) == {"x"}
    beyond = [replace(r, offset=1 << 40) if r.data_id == "gone" else r for r in index.records]
    assert set(looked([replace(index, records=tuple(beyond))], actual)[0]) == {"x"}
    not_dumped = [replace(r, tensor_path="x.bin", offset=None) if r.data_id == "gone" else r for r in index.records]
    assert set(looked([replace(index, records=tuple(not_dumped))], actual)[0]) == {"x"}
    (tmp_path / "a" / "rank00000.h5").unlink()
    assert looked(golden, actual)[1] == {}


def test_a_slice_that_vanished_leaves_the_others(tmp_path: Path) -> None:
    golden = stored(tmp_path / "g", "pta", {"x": whole()})
    actual = stored(tmp_path / "a", "acl", *({"y": part} for part in np.split(whole(), 4)))
    (tmp_path / "a" / "rank00002.h5").unlink()
    assert apart(looked(golden, actual)) < 1e-6


def test_a_slice_that_is_cut_while_it_is_open_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_and_cut(source: Source) -> MappedBits:
        opened = open_bits(source)
        if source.path.endswith("rank00002.h5"):
            os.truncate(source.path, 0)
        return opened

    monkeypatch.setattr(sampling, "open_bits", open_and_cut)
    golden = stored(tmp_path / "g", "pta", {"x": whole()})
    actual = stored(tmp_path / "a", "acl", *({"y": part} for part in np.split(whole(), 4)))
    assert apart(looked(golden, actual)) < 1e-6


def test_summaries_have_no_view(tmp_path: Path) -> None:
    value = whole()
    golden = stored(tmp_path / "g", "pta", {"x": value})
    summary = summarise(value.reshape(-1).view(np.uint8), "float32", value.shape, sketch=True)
    writer = ShardWriter(tmp_path / "g", ShardHeader("run", 1, 2, 1, 0, "here", 1, 0.0))
    capture = Capture.FINGERPRINT.value
    record = LabelRecord(0, "x", 0, "acl", 0, 0.0, "f.py:1", "float32", value.shape, capture=capture)
    writer.add(record, summary.pack().reshape(-1).view(np.uint8))
    writer.close()
    actual = [read_shard(files) for files in shards_in(tmp_path / "g") if files.rank == 1]
    assert looked(golden, actual) == ({}, {})


def test_the_first_task_and_the_first_of_each_id_count(tmp_path: Path) -> None:
    names = {str(number): whole(number, SMALL) for number in range(4)}
    (index,) = stored(tmp_path / "g", "pta", names)
    facts = [(3, "x", 0), (3, "x", 1), (7, "x", 0), (7, "only later", 0)]
    records = tuple(
        replace(record, task=task, data_id=name, occurrence=occurrence)
        for record, (task, name, occurrence) in zip(index.records, facts, strict=True)
    )
    actual = stored(tmp_path / "a", "acl", {"y": names["0"]})
    views = looked([replace(index, records=records)], actual)
    assert set(views[0]) == {"x"} and apart(views) < 1e-6


def test_little_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = stored(tmp_path / "g", "pta", {"x": whole(0, (64, 4096))})
    actual = stored(tmp_path / "a", "acl", *({"y": part} for part in np.split(whole(0, (64, 4096)), 4, axis=1)))
    read: list[Array] = []
    numbers_of: Callable[..., Array] = sampling.numbers_of

    def note(held: object, places: Array) -> Array:
        read.append(places)
        return numbers_of(held, places)

    monkeypatch.setattr(sampling, "numbers_of", note)
    looked(golden, actual)
    pages = [len(np.unique(places * 4 // 4096)) for places in read]
    assert pages[0] <= 17 and sum(pages) <= 4 * 17 and sum(places.size for places in read) == 2048
