"""Hashes of a model's weights: what is hashed, how it is stored, and what survives damage."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from aclcmp.labeling import weights
from aclcmp.labeling.layout import divisors
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.labeling.shard.weight_table import NOT_ZERO, HashedParameter, RowForm, WeightTable, row_length
from aclcmp.labeling.weights import hash_block, hash_weights
from tests.labeling.test_api import run_script
from tests.recorded import recorder_of

pytestmark = pytest.mark.model


class Conv1D(torch.nn.Module):
    """As transformers' class of this name: its weight is [in, out]."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)


def hashed(
    monkeypatch: pytest.MonkeyPatch, model: torch.nn.Module, side: str = "acl", **options: Any
) -> dict[str, HashedParameter]:
    tables: list[WeightTable] = []
    monkeypatch.setattr(weights, "record_weights", tables.append)
    hash_weights(model, side, **options)
    return {each.name: each for each in tables[0].parameters}


def expected(row: np.ndarray) -> int:
    return xxh3_64_intdigest(row.astype(np.float32).tobytes()) | NOT_ZERO


@given(rows=st.integers(1, 9), columns=st.integers(2, 200), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_row_s_hash_is_that_of_its_bytes_with_and_without_the_library(rows: int, columns: int, seed: int) -> None:
    block = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    block[rows // 2] = 0
    found = hash_block(block)
    right = [columns if not row.any() else expected(row) for row in block]
    assert found.tolist() == right
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "summary_library", lambda: None)
        assert hash_block(block).tolist() == right


def test_wider_types_that_hold_the_same_values_have_the_same_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = torch.nn.Linear(70, 5).to(torch.bfloat16)
    wide = torch.nn.Linear(70, 5)
    wide.load_state_dict(narrow.float().state_dict())
    narrow = narrow.to(torch.bfloat16)
    for name in ("weight", "bias"):
        one, other = (hashed(monkeypatch, model)[name].forms[RowForm()] for model in (narrow, wide))
        assert one.tolist() == other.tolist()


def test_golden_s_rows_are_hashed_as_the_other_side_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(12, 5, bias=False)
    found = hashed(monkeypatch, model, "pta", widths={12, 4}, dtypes=("bfloat16",), parts=divisors(6))["weight"].forms
    assert set(found) == {
        RowForm(dtype, part, parts) for dtype in ("", "bfloat16") for parts in (1, 3) for part in range(parts)
    }
    matrix = model.weight.detach()
    assert found[RowForm("", 2, 3)].tolist() == [expected(row) for row in matrix[:, 8:].numpy()]
    cast = matrix.to(torch.bfloat16).float().numpy()
    assert found[RowForm("bfloat16", 1, 3)].tolist() == [expected(row) for row in cast[:, 4:8]]


def test_columns_are_rows_where_a_weight_is_transposed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.ModuleDict({"c": Conv1D(torch.randn(6, 4)), "e": Conv1D(torch.randn(2, 3, 5))})
    found = hashed(monkeypatch, model, "pta", dtypes=())
    turned = found["c.weight"].forms[RowForm(transposed=True)]
    assert turned.tolist() == [expected(column) for column in found_columns(model["c"].weight)]
    experts = found["e.weight"].forms[RowForm(transposed=True)]
    assert experts.tolist() == [expected(c) for expert in model["e"].weight for c in found_columns(expert)]


def found_columns(matrix: torch.Tensor) -> np.ndarray:
    return matrix.detach().numpy().T.copy()


def test_a_cast_that_changes_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(12, 5).to(torch.bfloat16).float()
    assert set(hashed(monkeypatch, model, "pta", dtypes=("bfloat16",))["weight"].forms) == {RowForm()}


def test_what_cannot_be_hashed_has_a_reason_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Packed(torch.nn.ModuleDict):
        packed_modules_mapping = MappingProxyType({"packed": 3})

    model = Packed(
        {
            "packed": Conv1D(torch.empty(0)),
            "meta": Conv1D(torch.empty(3, 3, device="meta")),
            "complex": Conv1D(torch.zeros(2, 2, dtype=torch.complex64)),
            "scalar": Conv1D(torch.tensor(2.0)),
            "right": Conv1D(torch.ones(2, 3)),
            "lazy": torch.nn.LazyLinear(4),
        }
    )
    found = hashed(monkeypatch, model)
    assert "packed before" in found["packed.weight"].problem and "meta" in found["meta.weight"].problem
    assert "complex64" in found["complex.weight"].problem and "cannot be read" in found["lazy.weight"].problem
    assert [len(found[f"{name}.weight"].forms[RowForm()]) for name in ("scalar", "right")] == [1, 2]


@pytest.mark.parametrize(
    ("shape", "length"), [((), 1), ((7,), 1), ((7, 1), 1), ((7, 3), 3), ((2, 7, 3), 3), ((4, 3, 2, 2), 12)]
)
def test_how_long_a_row_is(shape: tuple[int, ...], length: int) -> None:
    assert row_length(shape) == length


def test_watch_records_them_beside_the_labels(tmp_path: Path) -> None:
    script = """
import torch
from aclcmp import watch
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
model[1].weight.data[0] = 0
watch(model, "golden", weights=3, prefix="m")
watch(torch.nn.Sequential(model), "actual", weights=True, rename={"0.**": "m.**"})
model(torch.ones(1, 4))
"""
    (index,), _ = run_script(tmp_path, script, strict=True)
    golden, actual = index.weights
    assert (golden.side, actual.side) == ("pta", "acl") and {record.side for record in index.records} == {"pta", "acl"}
    assert [each.name for each in golden.parameters] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert [each.label for each in actual.parameters] == ["m.0", "m.0", "m.1", "m.1"]
    assert {form.parts for form in golden.parameters[0].forms} == {1, 2}
    second = actual.parameters[2].forms[RowForm()]
    assert second[0] == 3 and second[1] >= NOT_ZERO and actual.parameters[2].shape == (2, 3)


def test_what_is_no_number_of_ranks_is_refused(tmp_path: Path) -> None:
    script = """
import torch
from aclcmp import watch
from aclcmp.labeling.errors import LabelError
for wrong in ("8", -1, 2.0, None):
    try:
        watch(torch.nn.Linear(2, 2), "golden", weights=wrong)
    except LabelError as error:
        assert "weights=" in str(error)
    else:
        raise AssertionError(wrong)
"""
    run_script(tmp_path, script)


def test_off_nothing_is_hashed() -> None:
    from aclcmp import watch

    model = torch.nn.Linear(2, 2)
    assert watch(model, "golden", weights=True).ids == {}


def shard_with_weights(folder: Path) -> tuple[ShardIndex, bytes]:
    recorder = recorder_of(folder)
    forms = {RowForm(): np.arange(5, dtype=np.uint64), RowForm("bfloat16", 1, 2): np.arange(9, 12, dtype=np.uint64)}
    recorder.record_weights(
        WeightTable("acl", (HashedParameter("w", "float32", (5, 4), "Linear", "", "", forms),), {"a": ("b", "c")})
    )
    recorder.record("acl", "x", np.ones(3), None, None, "", None, "here")
    recorder.close()
    (files,) = shards_in(folder)
    return read_shard(files), files.segment(0).read_bytes()


def test_they_come_back_as_they_were(tmp_path: Path) -> None:
    index, _ = shard_with_weights(tmp_path)
    (table,) = index.weights
    (parameter,) = table.parameters
    assert (parameter.name, parameter.shape, table.packed) == ("w", (5, 4), {"a": ("b", "c")})
    assert {form: rows.tolist() for form, rows in parameter.forms.items()} == {
        RowForm(): [0, 1, 2, 3, 4],
        RowForm("bfloat16", 1, 2): [9, 10, 11],
    }
    assert [record.data_id for record in index.records] == ["x"]


def test_damaged_hashes_are_lost_with_a_note_and_labels_are_not(tmp_path: Path) -> None:
    index, content = shard_with_weights(tmp_path)
    place = content.index(np.arange(5, dtype=np.uint64).tobytes())
    path = index.files.segment(0)
    path.write_bytes(content[:place] + b"\x07" + content[place + 1 :])
    damaged = read_shard(index.files)
    assert damaged.weights == () and any("hashes of weights are lost" in note for note in damaged.notes)
    assert [record.data_id for record in damaged.records] == ["x"]
