"""Summaries by torch operations against those of the kernels, on CPU tensors: none was run on an accelerator."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from aclcmp.labeling import device_summary
from aclcmp.labeling.device_summary import summarise_there
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.row_summaries import RowSummaries
from aclcmp.labeling.shard.summarise import summarise, summarise_rows
from aclcmp.labeling.shard.tensor_summary import TensorSummary
from aclcmp.labeling.summarised import packed_summary
from aclcmp.labeling.tensors import LabelledTensor, labelled_tensor
from tests.compare.test_pair import FLAVOURS, random_bits
from tests.labeling.shard.test_row_summaries import assert_alike

SHAPES = ((1, 1), (5, 3), (7, 576), (3, 1024), (4, 3001), (9000, 3), (2, 3, 40), (3, 9001))


@pytest.fixture(autouse=True)
def fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No type of device is known to lack an operation."""
    monkeypatch.setattr(device_summary, "_unfit", set())


def tensor_of(bits: np.ndarray, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(bits.reshape(-1).view(np.uint8).copy()).view(getattr(torch, name)).reshape(shape)


def assert_same_tensor(found: np.ndarray | None, expected: TensorSummary) -> None:
    assert found is not None
    summary = TensorSummary.unpack(found)
    for field in ("n", "nan", "posinf", "neginf", "min", "max", "digest", "places", "row_group"):
        assert getattr(summary, field) == getattr(expected, field), field
    norm = math.sqrt(expected.sum_squares)
    if math.isinf(norm):
        return
    assert abs(summary.sum - expected.sum) <= 1e-12 * norm * math.sqrt(expected.n)
    np.testing.assert_allclose(summary.row_squares, expected.row_squares, rtol=1e-12)
    for field in ("sketch", "row_sketches"):
        np.testing.assert_allclose(getattr(summary, field), getattr(expected, field), atol=1e-12 * norm, err_msg=field)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("sketch", [True, False])
def test_says_what_the_kernels_say(name: str, sketch: bool) -> None:
    for number, shape in enumerate(SHAPES):
        flavour = FLAVOURS[number % len(FLAVOURS)]
        bits = random_bits(np.random.default_rng(number), name, shape, flavour)
        flat, tensor = bits.reshape(-1).view(np.uint8), tensor_of(bits, name, shape)
        expected = summarise(flat, name, shape, sketch=sketch)
        assert_same_tensor(summarise_there(tensor, name, 0, sketch=sketch), expected)
        rows = summarise_rows(flat, name, shape[0], sketch=sketch)
        packed = summarise_there(tensor, name, shape[0], sketch=sketch) if len(shape) > 1 else rows.pack()
        assert packed is not None
        assert_alike(RowSummaries.unpack(packed, shape[0], rows.width), rows)


@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_large_tensors_are_taken_in_parts(name: str) -> None:
    for shape in ((1_100_001,), ((1 << 20) + 1,), (3 * (1 << 20) + 1001,), (3, 400_000), (800, 1500)):
        bits = random_bits(np.random.default_rng(0), name, shape, "ordinary")
        flat, tensor = bits.reshape(-1).view(np.uint8), tensor_of(bits, name, shape)
        assert_same_tensor(summarise_there(tensor, name, 0, sketch=True), summarise(flat, name, shape, sketch=True))
    packed = summarise_there(tensor, name, 800, sketch=True)
    assert packed is not None
    assert_alike(RowSummaries.unpack(packed, 800, 1500), summarise_rows(flat, name, 800, sketch=True))


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float64", "uint64", "complex64"])
def test_every_kind_of_value_that_is_not_finite(name: str) -> None:
    bits = random_bits(np.random.default_rng(0), name, (50, 70), "any bits")
    flat = bits.reshape(-1).view(np.uint8)
    expected = summarise(flat, name, (50, 70), sketch=True)
    assert name == "uint64" or expected.n_nonfinite
    assert_same_tensor(summarise_there(tensor_of(bits, name, (50, 70)), name, 0, sketch=True), expected)


def test_parts_of_a_storage_that_begin_anywhere() -> None:
    whole = torch.randn(4000, dtype=torch.float32).to(torch.bfloat16)
    for begin in range(1, 5):
        part = whole[begin : begin + 3 * 577].reshape(3, 577)
        bits = part.clone().view(torch.uint8).numpy().reshape(-1)
        assert_same_tensor(
            summarise_there(part, "bfloat16", 0, sketch=True), summarise(bits, "bfloat16", (3, 577), sketch=True)
        )
        packed = summarise_there(part, "bfloat16", 3, sketch=True)
        assert packed is not None
        assert_alike(RowSummaries.unpack(packed, 3, 577), summarise_rows(bits, "bfloat16", 3, sketch=True))


def test_what_the_device_cannot_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without float64 is asked once; one that is out of memory is asked again."""
    asked: list[str] = []

    def refuse(words: str) -> None:
        def moments(*_: Any) -> None:
            asked.append(words)
            raise RuntimeError(words)

        monkeypatch.setattr(device_summary, "_moments", moments)

    monkeypatch.setattr(LabelledTensor, "is_on_accelerator", True)
    tensor = labelled_tensor(torch.randn(4, 600))
    expected = summarise_rows(tensor.bits(), "float32", 4, sketch=True).pack()
    for words, times in (("CUDA out of memory", 2), ("this device has no float64", 1)):
        refuse(words)
        for _ in range(2):
            found = packed_summary(tensor, 4, sketch=True)
            assert found is not None and found.tobytes() == expected.tobytes()
        assert asked.count(words) == times


def test_labels_on_a_device_are_summed_up_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LabelledTensor, "is_on_accelerator", True)
    tensor = labelled_tensor(torch.randn(100, 600).T.contiguous().T.requires_grad_())
    expected = summarise(tensor.bits(), "float32", (100, 600), sketch=False)
    monkeypatch.setattr(LabelledTensor, "bits", None)  # the tensor is not copied
    assert_same_tensor(packed_summary(tensor, 0, sketch=False), expected)
