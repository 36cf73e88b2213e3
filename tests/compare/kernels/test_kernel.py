"""The kernels on every kind of CPU that this one can stand for: any slice, equal bits, and no byte beside a tensor."""

import ctypes
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.compare.kernels.kernel_args import KernelOperand, Rows
from aclcmp.orchestrator.compare.kernels.strides import Walk
from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.regions import Region
from tests.compare.conftest import TARGETS
from tests.compare.reference import assert_agree, reference_stats, values
from tests.compare.test_pair import FLAVOURS, cut, encode, operand, pairs, random_bits
from tests.processes import PATIENCE


@settings(max_examples=100)
@given(pairs())
def test_every_cpu_gives_the_same_bits(kernels: ctypes.CDLL, pair):
    x_bits, y_bits, x_name, y_name, _ = pair
    region = Region.whole(x_bits.shape)
    sides = operand(x_bits, x_name, region), operand(y_bits, y_name, region)
    found = []
    for target in range(kernels.use_target(TARGETS[-1]) + 1):
        assert kernels.use_target(target) == target
        found.append(repr(pair_stats(*sides, x_bits.shape, region)))
    assert len(set(found)) == 1


NAMES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "int32", "uint8", "complex64")


@settings(max_examples=200)
@given(st.data())
def test_slices_of_any_width(kernels: ctypes.CDLL, data):
    name, other = (data.draw(st.sampled_from(NAMES)) for _ in range(2))
    if DTYPES[name].kind is not DTYPES[other].kind:
        other = name
    kernels.use_target(data.draw(st.sampled_from(TARGETS)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3000)))
    start = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    region = Region(start, tuple(data.draw(st.integers(1, size - at)) for size, at in zip(shape, start, strict=True)))
    flavour = data.draw(st.sampled_from(FLAVOURS))
    x, y = random_bits(rng, name, shape, flavour), random_bits(rng, other, shape, flavour)
    if DTYPES[name].kind is Kind.FLOAT and data.draw(st.booleans()):
        specials = encode(np.array([np.nan, np.inf, -np.inf, -0.0]), name)
        x = x.copy()
        x.reshape(-1)[rng.integers(0, x.size, 1 + x.size // 500)] = rng.choice(specials)
    piece = cut(y, region)
    actual = operand(piece, other, Region.whole(piece.shape)) if data.draw(st.booleans()) else operand(y, other, region)
    found = pair_stats(operand(x, name, region), actual, shape, region)
    expected = reference_stats(cut(x, region), piece, name, other, shape, region)
    with np.errstate(all="ignore"):
        sides = values(cut(x, region), name), values(piece, other)
        finite = np.isfinite(sides[0]) & np.isfinite(sides[1])
        assert_agree(found, expected, *(float(np.abs(side[finite]).sum()) for side in sides))


GUARDED = """
import ctypes, itertools, mmap, sys
import numpy as np
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.pair import Operand, pair_stats
from aclcmp.orchestrator.core.regions import Region

PAGES = 40
mapped = mmap.mmap(-1, PAGES * mmap.PAGESIZE)
address = np.frombuffer(mapped, np.uint8).ctypes.data
for page in (0, PAGES - 1):
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + page * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
readable = np.frombuffer(mapped, np.uint8)[mmap.PAGESIZE : -mmap.PAGESIZE]
load_library().use_target(int(sys.argv[1]))
for name, width, (begin, end) in itertools.product(
    ("float32", "bfloat16", "float16", "float8_e5m2", "float64", "int8", "complex64"),
    (1, 3, 8, 100, 129, 1030),
    ((0, 1), (0, 0.3), (0.5, 1)),
):
    memory = DTYPES[name].memory
    shape = (min(readable.size // memory.itemsize // width, 9), width)
    columns = int(begin * width), max(int(end * width), int(begin * width) + 1)
    region = Region((0, columns[0]), (shape[0], columns[1] - columns[0]))
    size = shape[0] * width * memory.itemsize
    for bits in (readable[:size], readable[-size:]):
        side = Operand(bits.view(memory), name, shape, region)
        for more in ((), (side,)):
            both = Operand(side.bits, name, shape, region, more=more)
            assert pair_stats(both, side, shape, region).n
print("done")
"""


@pytest.mark.parametrize("target", TARGETS)
def test_no_byte_beside_a_tensor_is_read(kernels: ctypes.CDLL, target):
    if kernels.use_target(target) != target:
        pytest.skip("this CPU is not of this kind")
    command = [sys.executable, "-c", GUARDED, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "done\n", done


def test_a_region_beyond_its_tensor_is_refused():
    x = np.ones(12, np.float32)
    region = Region((0, 2), (3, 3))
    with pytest.raises(ValueError, match="ends at element 12 of a tensor of 12"):
        pair_stats(
            Operand(x, "float32", (3, 4), region), operand(x[:9], "float32", Region((0, 0), (3, 3))), (3, 4), region
        )
    with pytest.raises(ValueError, match="of a tensor of 3"):
        KernelOperand(x.view(np.uint8)[:15], 4, 1, Walk(4, 0))
    with pytest.raises(ValueError, match="belongs to none of 2 groups of 4"):
        Rows(1, 4, Walk(9, 0), 2)
