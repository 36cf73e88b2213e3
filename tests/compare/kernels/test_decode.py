"""Decoded values against ml_dtypes, for every bit pattern."""

import ml_dtypes
import numpy as np
import pytest

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.element_codes import CODES
from aclcmp.orchestrator.compare.kernels.kernel import add_up
from aclcmp.orchestrator.compare.kernels.kernel_args import KernelOperand
from aclcmp.orchestrator.compare.kernels.strides import Walk
from aclcmp.orchestrator.core.regions import Region


def test_every_element_type_has_a_code():
    assert set(CODES) == set(DTYPES)


@pytest.mark.parametrize("name", [name for name in DTYPES if name.startswith(("float8", "float16", "bfloat16"))])
def test_all_bit_patterns(name):
    memory = DTYPES[name].memory
    bits = np.arange(2 ** (8 * memory.itemsize), dtype=f"u{memory.itemsize}")
    exact = np.float16 if name == "float16" else getattr(ml_dtypes, name)
    with np.errstate(invalid="ignore"):
        expected = bits.view(exact).astype(np.float32)
    walk = Walk.of((bits.size,), Region.whole((bits.size,)))
    operand = KernelOperand(bits.view(np.uint8), memory.itemsize, CODES[name], walk)
    found = np.empty(bits.size)
    add_up(operand, 0, bits.size, exact=False, first=True, sums=found.view(np.int64))
    np.testing.assert_array_equal(found, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(expected[number]))
