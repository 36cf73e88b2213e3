"""The whole way: a laptop submits a ready file to two hosts, the fault on one is found, the report comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.netns import hosts, ray_on
from tests.processes import PATIENCE
from tests.recorded import read_report

pytestmark = [pytest.mark.netns, pytest.mark.submit, pytest.mark.model]

ROOT = Path(__file__).parents[2]
FAULT = "python examples/glm/run.py --turns 1 --layers 3 --fault permuted-slice --layer 2 --rank 6"


def test_glm_on_two_hosts(tmp_path: Path) -> None:
    with hosts(tmp_path, ("acl-a", "acl-b", "laptop")) as (a, b, laptop), ray_on([a, b], cpus=4, dashboard="10.77.0.1"):
        address = f"http://{a.ip}:8265"
        arguments = ("--address", address, "--nodes", "2", "--exec", FAULT, "--output", "here")
        file = ROOT / "cluster_configs" / "existing.yaml"
        done = laptop.run("aclcmp", "submit", file, *arguments, timeout=PATIENCE)
        assert done.code == 1, done
        assert "8 ranks on 2 hosts" in done.out and "rank 6 (host acl-b)" in done.out, done.out
        report = read_report(laptop.files / "here")
        first = report["first_divergence"]
        assert (first["label"], first["ranks"], first["origin"]) == ("layers.2.mlp.act.local", [6], "own")
        assert report["coverage"]["compared"] == sum(len(label["ranks"]) for label in report["labels"]) > 200
        record = json.loads((laptop.files / "here" / "run.json").read_text())
        assert [rank["host"] for rank in record["ranks"]] == ["acl-a"] * 4 + ["acl-b"] * 4
        token = a.environ["RAY_AUTH_TOKEN"].encode()
        kept = [path for path in laptop.files.rglob("*") if path.is_file()]
        assert kept and not any(token in path.read_bytes() for path in kept)
        explained = laptop.run("aclcmp", "explain", "here", "layers.2.mlp.act.local")
        assert explained.code == 0 and "rank 6" in explained.out, explained
