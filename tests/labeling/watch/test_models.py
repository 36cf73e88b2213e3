"""Real models beside their tensor-parallel selves on two ranks: every label pairs, and its layout is true."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.layout import Shard
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from aclcmp.orchestrator.cluster.ports import free_port
from tests.examples.glm_ranks import rank_environment
from tests.processes import PATIENCE

pytestmark = pytest.mark.model

RANKS = 2


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ShardIndex], list[str]]:
    """The ranks' shards, and what rank 0 printed."""
    folder = tmp_path_factory.mktemp("shards")
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("watch_ranks.py"))]
    processes = [
        subprocess.Popen(
            command,
            env=rank_environment(folder, rank, RANKS, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * RANKS, "\n".join(outputs)
    return [read_shard(ShardFiles(folder, rank)) for rank in range(RANKS)], outputs[0].splitlines()


def test_both_sides_have_the_same_labels(ran: tuple[list[ShardIndex], list[str]]) -> None:
    for shard in ran[0]:
        assert not any(record.error for record in shard.records)
        sides = [[(r.data_id, r.occurrence) for r in shard.records if r.side == side] for side in ("pta", "acl")]
        unpaired = set(sides[0]) ^ set(sides[1])
        assert {data_id for data_id, _ in unpaired} == {f"glm_packed.model.layers.{n}.mlp.gate_up_proj" for n in (0, 1)}
        assert len(sides[1]) == len(set(sides[1])) > 600


def test_layouts_are_true(ran: tuple[list[ShardIndex], list[str]]) -> None:
    """What a layout calls a slice is the slice, what it calls a replica the whole; without one shapes tell."""
    kinds: dict[str, int] = {}
    for rank, shard in enumerate(ran[0]):
        goldens = {(r.data_id, r.occurrence): r for r in shard.records if r.side == "pta"}
        for record in shard.records:
            if record.side != "acl" or (golden := goldens.get((record.data_id, record.occurrence))) is None:
                continue
            whole, part = read_label(shard, golden), read_label(shard, record)
            layout = record.layout
            if layout is None:
                dims = [
                    dim for dim, sizes in enumerate(zip(whole.shape, part.shape, strict=True)) if len(set(sizes)) > 1
                ]
                assert len(dims) <= 1, record
            else:
                dims = [placement.dim for placement in layout.placements if isinstance(placement, Shard)]
            for dim in dims:
                whole = np.array_split(whole, RANKS, axis=dim)[rank]
            assert whole.shape == part.shape, record
            assert np.allclose(whole, part, rtol=1e-4, atol=1e-4), record
            kinds[str(layout)] = kinds.get(str(layout), 0) + 1
    assert set(kinds) == {"None", "Replicate()", "Shard(dim=-1)", "Shard(dim=1)"}


@pytest.mark.parametrize(
    ("data_id", "layout"),
    [
        ("llama.model.embed_tokens", "Replicate()"),
        ("llama.model.layers.0.self_attn.q_proj", "Shard(dim=-1)"),
        ("llama.model.layers.1.self_attn.q_proj.input", "Replicate()"),
        ("llama.model.layers.1.mlp.down_proj.input", "Shard(dim=-1)"),
        ("llama.model.layers.1.mlp.down_proj", "Replicate()"),
        ("llama.model.layers.1.mlp", "None"),
        ("llama_grad.model.layers.0.self_attn.q_proj", "Shard(dim=-1)"),
        ("qwen2.lm_head", "Replicate()"),
        ("qwen3.model.layers.0.self_attn.q_norm", "None"),
        ("glm.model.layers.0.mlp.gate_up_proj", "Replicate()"),
        ("glm.model.layers.0.mlp.down_proj.input", "Replicate()"),
        ("glm_packed.model.layers.0.mlp.down_proj.input", "Shard(dim=-1)"),
        ("mixtral.model.layers.0.mlp.experts", "Replicate()"),
        ("mixtral.model.layers.0.mlp.gate", "None"),
        ("torch_True.up", "Shard(dim=-1)"),
        ("torch_True.down", "None"),
        ("torch_False.up", "Shard(dim=1)"),
        ("torch_False.down", "Replicate()"),
    ],
)
def test_layouts_that_are_known(ran: tuple[list[ShardIndex], list[str]], data_id: str, layout: str) -> None:
    for shard in ran[0]:
        (found,) = {str(record.layout) for record in shard.records if (record.data_id, record.side) == (data_id, "acl")}
        assert found == layout


def test_what_is_said(ran: tuple[list[ShardIndex], list[str]]) -> None:
    packed = "several slices lie side by side in its output: not labelled"
    names = [f"model.layers.{n}.mlp.gate_up_proj" for n in (0, 1)]
    assert f"aclcmp: watch, side 'acl': {', '.join(names)}: {packed}" in ran[1]
    assert "|".join(("glm_packed", *(f"{name!r}: {packed}" for name in names))) in ran[1]
    assert {"llama", "mixtral", "torch_True"} <= set(ran[1])
    assert len([line for line in ran[1] if line.startswith("aclcmp:")]) == 1
