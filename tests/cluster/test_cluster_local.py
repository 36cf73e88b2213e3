"""A local Ray, opened in a thread that ends before it is used."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.cluster.ray_start import SIMULATE
from tests.processes import descendants, living, wait_until


@pytest.mark.ray
def test_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # a local one was asked for
    monkeypatch.setenv(SIMULATE, '{"NPU": 2, "GPU": 1, "CPU": 3}')
    before, others = dict(os.environ), set(descendants())
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(Cluster.open)
    with opening.result() as cluster:
        import ray

        assert dict(os.environ) == before
        assert cluster.address_words == "local Ray"
        assert {name: cluster.resources()[name] for name in ("NPU", "GPU", "CPU")} == {"NPU": 2, "GPU": 1, "CPU": 3}

        def ids() -> dict[str, list[str]]:
            return dict(ray.get_runtime_context().get_accelerator_ids())

        assert ray.get(ray.remote(ids).options(num_cpus=0, resources={"NPU": 2}).remote())["NPU"] == ["0", "1"]
        daemons = [each for each in descendants() if each not in others]
        listening = set()
        for each in [psutil.Process(), *daemons]:
            with suppress(psutil.NoSuchProcess):
                sockets = each.net_connections()
                listening |= {(each.name(), one.laddr.ip) for one in sockets if one.status == psutil.CONN_LISTEN}
        assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
        assert {ip.removeprefix("::ffff:") for _, ip in listening} == {"127.0.0.1"}
        folder = Path(ray._private.worker._global_node.get_session_dir_path()).parent.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and (folder / "r" / "session_latest").is_dir()
    cluster.close()
    wait_until(lambda: not living(bool, daemons), lambda: daemons)
    assert not [path for path in folder.rglob("*") if path.is_file()]  # of 11 MB of logs
    assert not list(tmp_path.iterdir())  # Ray would write a token here
