"""report.h5 as a whole: its seal, texts of fixed length, and what earlier versions and strangers wrote."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from aclcmp.labeling.shard.trial import check_opens
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.report.as_json import json_pieces
from aclcmp.orchestrator.report.h5 import sealed_file
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from tests.report.made_up import decoder_labels, record_of, report_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_h5(report_of(decoder_labels(2, 2, ("layers.0.mlp.down.local", 1)), run=record_of(2)), tmp_path / "report.h5")
    return tmp_path / "report.h5"


def content(path: Path) -> str:
    return "".join(json_pieces(read_h5(path, None)))


def never(path: Path) -> None:
    raise AssertionError("a sealed file needs no trial")


def test_no_text_has_a_variable_length(path: Path) -> None:
    texts = 0

    def check(kind: np.dtype[Any]) -> None:
        nonlocal texts
        for each in [kind] if kind.names is None else [kind[name] for name in kind.names]:
            assert each.kind != "O"
            texts += each.kind == "S"

    def visit(name: str, found: Any) -> None:
        for attribute in found.attrs:
            check(found.attrs.get_id(attribute).dtype)
        if isinstance(found, h5py.Dataset):
            check(found.dtype)

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    assert texts > 100


def test_any_change_of_its_bytes_is_told_without_hdf5(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_file, "check_opens", never)
    read_h5(path, None)
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(200):
        spoilt = bytearray(whole)
        spoilt[chance.randrange(len(whole) - sealed_file.SEAL_LENGTH)] ^= 1 << chance.randrange(8)
        path.write_bytes(spoilt)
        with pytest.raises(UsageError, match=r"report\.h5 is damaged: its bytes are not those .*`aclcmp compare`"):
            read_h5(path, None)


def test_one_that_other_tools_added_to_is_read(path: Path) -> None:
    before = content(path)
    with h5py.File(path, "r+") as file:
        file["mine"] = np.arange(5)
        file.attrs["mine"] = "a text of variable length"
    assert content(path) == before


def test_one_of_an_earlier_version_is_read(path: Path) -> None:
    before = content(path)
    with h5py.File(path, "r+") as file:
        owners: list[Any] = [file]
        file.visititems(lambda name, found: owners.append(found))
        for owner in owners:
            for name, value in list(owner.attrs.items()):
                if isinstance(value, bytes):
                    owner.attrs[name] = value.decode()
        for name in ("notes", "plots/by_rank/label"):
            texts = file[name][:].tolist()
            del file[name]
            file[name] = np.array(texts, dtype=h5py.string_dtype())
    assert content(path) == before


def test_one_on_which_hdf5_hangs_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "r+") as file:
        for number in range(40):
            file.attrs[f"text{number}"] = "x" * 100
    whole = path.read_bytes()
    heap = whole.index(b"GCOL") + 64
    path.write_bytes(whole[:heap] + bytes(1000) + whole[heap + 1000 :])
    monkeypatch.setattr(sealed_file, "check_opens", lambda path: check_opens(path, 1.0))
    with pytest.raises(UsageError, match=r"report\.h5 did not open within 1 s: it is damaged"):
        read_h5(path, None)


def million_rows(file: h5py.File) -> None:
    kind = file["labels"].dtype
    del file["labels"]
    file.create_dataset("labels", (3_000_000,), kind, chunks=(50_000,), compression="gzip")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (million_rows, "labels has 0 bytes, but would unpack to"),
        (lambda file: file["rows"].update({"evil": file["/"]}), "rows/evil is there under two names"),
        (lambda file: file.attrs.update({"verdict": "x" * 50_000}), "its verdict is 'xxx"),
        (lambda file: file.attrs.update({"exit_code": 5}), "5 is not a valid ExitCode"),
        (lambda file: file.pop("replicas"), "it has no replicas"),
        (lambda file: file["coverage"].attrs.pop("failed"), "cannot be read as a report"),
    ],
)
def test_what_strangers_made_of_it_is_refused(path: Path, change: Callable[[h5py.File], None], why: str) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UsageError, match=why) as caught:
        read_h5(path, None)
    assert str(path) in str(caught.value)


def test_long_texts_come_back_whole(tmp_path: Path) -> None:
    labels = decoder_labels(1, 1, None)
    long = "ü" * 5_000
    write_h5(report_of(labels, run=record_of(1), notes=(long, "", "short")), tmp_path / "report.h5")
    assert read_h5(tmp_path / "report.h5", None).notes[-3:] == (long, "", "short")
