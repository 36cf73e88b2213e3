"""The GLM example on 4 ranks: healthy labels match, and each fault shows first where examples/glm/faults.py says."""

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from aclcmp.labeling.shard.shard_index import ShardIndex
from tests.examples.glm_ranks import GLM, errors_by_label, run_rounds

pytestmark = pytest.mark.model

RANKS, LAYER, RANK = 4, 1, 2
FAULTS = (
    "permuted-slice",
    "swapped-heads",
    "double-reduce",
    "missing-reduce",
    "rope-off-by-one",
    "scale",
    "one-token",
    "nan",
)
LIMITS = {"float32": (1e-5, 1e-3), "bfloat16": (3e-2, 0.15)}
"""Relative L2 up to which a label matches, and beyond which it diverges."""
ROUNDS = [(dtype, fault) for dtype in LIMITS for fault in (None, *FAULTS)]
PARTS = (
    "input_norm",
    "attn.q.local",
    "attn.k.local",
    "attn.v.local",
    "attn.context.local",
    "attn.out",
    "post_norm",
    "mlp.act.local",
    "mlp.out",
    "out",
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[ShardIndex]:
    options = [
        [
            "--layers",
            "3",
            "--dtype",
            dtype,
            "--layer",
            str(LAYER),
            "--rank",
            str(RANK),
            *(["--fault", fault] if fault else []),
        ]
        for dtype, fault in ROUNDS
    ]
    return run_rounds(tmp_path_factory.mktemp("shards"), RANKS, options)


@pytest.fixture(scope="module")
def faults() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("glm_faults", GLM / "faults.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_labels_of_a_turn_in_order(shards: list[ShardIndex]) -> None:
    layers = [f"layers.{layer}.{part}" for layer in range(3) for part in PARTS]
    expected = ["input_ids", "embed", *layers, "norm", "lm_head"]
    for shard in shards:
        for task in (0, 1):
            for side in ("pta", "acl"):
                ids = [record.data_id for record in shard.records if (record.task, record.side) == (task, side)]
                assert ids == expected


@pytest.mark.parametrize("dtype", LIMITS)
def test_healthy_labels_match_on_all_ranks(shards: list[ShardIndex], dtype: str) -> None:
    for errors in errors_by_label(shards, ROUNDS.index((dtype, None))):
        for error in errors:
            assert error.largest < LIMITS[dtype][0], error
            assert error.sliced == error.data_id.endswith(".local"), error


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("dtype", LIMITS)
def test_fault_shows_first_where_it_should(
    shards: list[ShardIndex], faults: ModuleType, dtype: str, fault: str
) -> None:
    match, limit = LIMITS[dtype]
    expected = faults.FAULTS[fault]
    for errors in errors_by_label(shards, ROUNDS.index((dtype, fault))):
        if errors[0].data_id == expected.first_label(LAYER):
            break
        assert max(error.largest for error in errors) < match, errors
    else:
        pytest.fail(f"no label {expected.first_label(LAYER)}")
    if (dtype, fault) == ("bfloat16", "scale"):
        limit = match  # five rounding steps: a drift, and the README says so
    assert tuple(error.rank for error in errors if error.largest > limit) == expected.first_ranks(RANK, RANKS)
    assert all(error.largest < match or error.largest > limit for error in errors)
    assert any(error.nonfinite for error in errors) == (fault == "nan")


def test_all_faults_are_tested_and_in_the_readme(faults: ModuleType) -> None:
    assert tuple(faults.FAULTS) == FAULTS
    table = (GLM / "README.md").read_text().partition("| `--fault` |")[2]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    for (name, fault), row in zip(faults.FAULTS.items(), rows, strict=True):
        planted = "all ranks" if fault.planted_on_all else "rank R"
        seen = "all ranks" if fault.seen_on_all else "rank R"
        assert row.startswith(f"| `{name}` |")
        assert row.endswith(f"| {planted} | `{fault.first_label('L')}` | {seen} |")
