"""A last bit is changed in a run that measures noise, and nothing at all in any other."""

import importlib
import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aclcmp
from aclcmp.labeling.shard.dtypes import DTYPES

module = importlib.import_module("aclcmp.labeling.perturb")
FLOATS = sorted(name for name, dtype in DTYPES.items() if dtype.eps is not None)
Seed = Callable[[str], None]


@pytest.fixture
def seed(monkeypatch: pytest.MonkeyPatch) -> Seed:
    """Begin a process anew in which the launcher has set a seed."""

    def begin(text: str) -> None:
        monkeypatch.setattr(module, "_seed", text)
        monkeypatch.setattr(module, "_calls", itertools.count())
        monkeypatch.setattr(module, "_printed", set())

    return begin


@pytest.mark.parametrize(
    "value",
    [np.ones(3), np.arange(3), [1.0], None, "text", object()],
    ids=("floats", "integers", "list", "none", "text", "object"),
)
def test_off_it_is_the_same_object(value: object) -> None:
    assert aclcmp.perturb(value) is value


def test_off_it_imports_nothing() -> None:
    script = """
import sys
import aclcmp
x = object()
assert aclcmp.perturb(x) is x
for heavy in ("torch", "ray", "h5py", "numpy"):
    assert heavy not in sys.modules, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ))


def test_the_launcher_switches_it_on() -> None:
    script = """
import numpy as np
import aclcmp
x = np.ones(1000, np.float32)
assert (aclcmp.perturb(x) != x).any() and (x == 1).all()
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"ACLCMP_PERTURB": "0"})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, np.complex128])
def test_numbers_move_to_their_neighbours(seed: Seed, dtype: type) -> None:
    seed("1")
    x: np.ndarray = (np.random.default_rng(0).standard_normal(20_000) + 3).astype(dtype)
    moved = aclcmp.perturb(x)
    assert moved.dtype == x.dtype and moved.shape == x.shape and moved is not x
    step = np.spacing(np.abs(x.real))
    assert (np.abs(moved.real - x.real) <= step).all()
    changed = float((moved != x).mean())
    assert 0.15 < changed < 0.45  # values from 2 to 4: 1 - ln 2 of those spread evenly over a power of two
    both_ways = moved.real - x.real
    assert abs(float(np.sign(both_ways).mean())) < 0.05


def test_a_seed_and_the_number_of_the_call_decide(seed: Seed) -> None:
    x = np.linspace(1, 2, 1000, dtype=np.float32)
    runs: dict[str, Any] = {}
    for text in ("1", "1", "2", "-3"):
        seed(text)
        runs.setdefault(text, []).append([aclcmp.perturb(x).tobytes() for _ in range(3)])
    assert runs["1"][0] == runs["1"][1]
    every = [each for several in runs.values() for each in several[0]]
    assert len(set(every)) == 9


def test_a_call_that_changes_nothing_counts(seed: Seed) -> None:
    """Ranks must agree on the number of a call, whatever one of them passes."""
    x = np.linspace(1, 2, 1000, dtype=np.float32)
    seed("1")
    first, second = aclcmp.perturb(x), aclcmp.perturb(x)
    seed("1")
    assert (aclcmp.perturb([x])[0] is x) and (aclcmp.perturb(x) == second).all() and (first != second).any()


@given(st.lists(st.floats(width=32), max_size=30), st.integers(-(2**70), 2**70))
def test_any_numbers_and_any_seed(values: list[float], number: int) -> None:
    x = np.array(values, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_seed", str(number))
        moved = aclcmp.perturb(x)
    same = (moved == x) | (np.isnan(moved) & np.isnan(x))
    assert same[~np.isfinite(x) | (x == 0)].all()
    assert np.isfinite(moved[np.isfinite(x)]).all()
    finite = np.isfinite(x)
    with np.errstate(over="ignore"):
        below, above = (np.nextafter(x[finite], end, dtype=np.float32) for end in (-np.inf, np.inf))
    assert ((below <= moved[finite]) & (moved[finite] <= above)).all()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)])
def test_any_shape(seed: Seed, shape: tuple[int, ...]) -> None:
    seed("1")
    moved = aclcmp.perturb(np.ones(shape, np.float16))
    assert isinstance(moved, np.ndarray) and moved.shape == shape


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            np.arange(3),
            "a ndarray as it is: int64 has no last bit to change; perturb the first input of floating point",
        ),
        (np.ones(2, bool), "bool has no last bit"),
        (np.array(["x"]), "has no last bit"),
        ([np.ones(2)], "a list as it is: it is no torch.Tensor and no numpy array"),
        (None, "a NoneType as it is"),
    ],
)
def test_what_has_no_neighbours_stays_and_is_told_once(
    seed: Seed, capsys: pytest.CaptureFixture[str], value: object, words: str
) -> None:
    seed("1")
    assert aclcmp.perturb(value) is value and aclcmp.perturb(value) is value
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_a_seed_that_is_none_is_told(seed: Seed, capsys: pytest.CaptureFixture[str]) -> None:
    seed("many")
    x = np.ones(2)
    assert aclcmp.perturb(x) is x
    assert "ACLCMP_PERTURB='many' is no integer" in capsys.readouterr().err


@pytest.mark.model
@pytest.mark.parametrize("name", FLOATS)
def test_every_dtype_of_torch(seed: Seed, name: str) -> None:
    import torch

    seed("1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # complex32 is experimental
        numbers = torch.rand(3000, generator=torch.Generator().manual_seed(0)) + 1
        x = numbers.to(getattr(torch, name))
        moved = aclcmp.perturb(x)
        assert moved.dtype == x.dtype and moved is not x
        wide = torch.complex128 if x.is_complex() else torch.float64
        apart = (moved.to(wide) - x.to(wide)).abs() / x.to(wide).abs()
        eps = DTYPES[name].eps
        assert eps is not None and 0 < apart.max() <= eps
        assert 0.1 < (apart > 0).double().mean() < 0.5
        largest = torch.full((1000,), _largest(torch, name)).to(x.dtype)
        assert torch.isfinite(aclcmp.perturb(largest).to(wide)).all()


def _largest(torch: Any, name: str) -> float:
    real = {"complex32": "float16", "complex64": "float32", "complex128": "float32"}.get(name, name)
    return min(float(torch.finfo(getattr(torch, real)).max), float(torch.finfo(torch.float32).max))


@pytest.mark.model
def test_torch_and_numpy_agree_and_strides_and_gradients_stay(seed: Seed) -> None:
    import torch

    plain = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    seed("7")
    of_numpy = aclcmp.perturb(plain)
    seed("7")
    of_torch = aclcmp.perturb(torch.from_numpy(plain))
    np.testing.assert_array_equal(of_torch.numpy(), of_numpy)
    seed("7")
    turned = torch.from_numpy(np.ascontiguousarray(plain.T)).t().requires_grad_()
    moved = aclcmp.perturb(turned)
    np.testing.assert_array_equal(moved.detach().numpy(), of_numpy)
    assert moved.stride() == turned.stride()
    moved.sum().backward()
    assert turned.grad is not None and torch.allclose(turned.grad, torch.ones(()))
    with torch.inference_mode():
        assert (aclcmp.perturb(torch.ones(100)) != 1).any()
    tokens = torch.arange(3)
    assert aclcmp.perturb(tokens) is tokens


@pytest.mark.model
def test_of_a_dtensor_the_local_tensor_is_moved(seed: Seed) -> None:
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dist.init_process_group("fake", rank=1, world_size=4, store=FakeStore())
        try:
            mesh = init_device_mesh("cpu", (4,))
            local = torch.linspace(1, 2, 30).reshape(2, 15)
            whole = DTensor.from_local(local, mesh, (Shard(0),), shape=torch.Size((6, 15)), stride=(15, 1))
            seed("7")
            moved = aclcmp.perturb(whole)
            assert isinstance(moved, DTensor) and (moved.shape, moved.placements) == (whole.shape, whole.placements)
            seed("7")
            assert (moved.to_local() == aclcmp.perturb(local)).all() and (moved.to_local() != local).any()
        finally:
            dist.destroy_process_group()
