"""The variables that a rank sees, and what of them may stand in run.json."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.core.job import Device, Job, Launcher, Placement
from aclcmp.orchestrator.launch.environment import Rendezvous, rank_environment, variables_for_record

PLACE = Placement(
    actor=0, rank=5, local_rank=1, local_world_size=4, group_rank=1, node_id="b", ip="10.0.0.2", host="b",
    devices=("3",), visible=("2", "3"),
)  # fmt: skip
MEETING = Rendezvous("20261122-101500", Path("/runs/1/shards"), "10.0.0.1", 29500, 2)
DRIVER = {
    "PATH": "/bin",
    "HOME": "/home/u",
    "A": "1",
    "RANK": "9",
    "ACLCMP_SIMULATE": "{}",
    "LD_LIBRARY_PATH": "/ascend",
}


def environment(
    driver: dict[str, str] = DRIVER, device: Device = Device.NPU, same_node: bool = True, **options: Any
) -> dict[str, str]:
    job = replace(Job(("true",), Path("/"), ranks=8), **options)
    return rank_environment(job, device, PLACE, MEETING, driver, same_node=same_node, interface="eth0")


def test_torchruns_variables_and_ours() -> None:
    seen = environment()
    assert {name: seen[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")} == {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1",
    }  # fmt: skip
    assert (seen["MASTER_ADDR"], seen["MASTER_PORT"]) == ("10.0.0.1", "29500")
    assert (seen["ACLCMP_RUN_ID"], seen["ACLCMP_SHARD_DIR"]) == ("20261122-101500", "/runs/1/shards")
    assert seen["ASCEND_RT_VISIBLE_DEVICES"] == "2,3"
    assert "CUDA_VISIBLE_DEVICES" not in seen and "ACLCMP_STRICT" not in seen and "ACLCMP_SIMULATE" not in seen
    assert environment(device=Device.CUDA)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert environment(strict=True)["ACLCMP_STRICT"] == "1"


def test_what_ray_sets_for_a_submitted_job_stays_there() -> None:
    names = ("RAY_JOB_STOP_WAIT_TIME_S", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "RAY_worker_niceness")
    of_a_job = {**DRIVER, **dict.fromkeys(names, "1"), "RAY_ADDRESS": "10.0.0.1:6379"}
    assert of_a_job.keys() & environment(of_a_job).keys() >= {*names, "RAY_ADDRESS"}  # the user's own
    seen = environment({**of_a_job, "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"})
    assert {name for name in seen if name.startswith("RAY_")} == {"RAY_ADDRESS"}


def test_on_the_cpu_torch_loads_no_backend_by_itself() -> None:
    name = "TORCH_DEVICE_BACKEND_AUTOLOAD"

    def seen(driver: dict[str, str], **env: str) -> str:
        job = Job(("true",), Path("/"), ranks=8, device=Device.CPU, env=env)
        return rank_environment(job, Device.CPU, PLACE, MEETING, driver, same_node=True, interface=None)[name]

    assert (seen({}), seen({name: "1"}), seen({}, **{name: "1"})) == ("0", "0", "1")
    assert name not in environment() and name not in environment(device=Device.CPU)  # auto, and Ray has no devices


def test_threads_and_buffering_are_defaults_only() -> None:
    assert (environment()["OMP_NUM_THREADS"], environment()["PYTHONUNBUFFERED"]) == ("1", "1")
    own = environment({"OMP_NUM_THREADS": "4", "PYTHONUNBUFFERED": ""})
    assert (own["OMP_NUM_THREADS"], own["PYTHONUNBUFFERED"]) == ("4", "")
    assert environment(env={"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "2"


def test_another_node_keeps_its_own() -> None:
    assert environment()["PATH"] == "/bin"
    far = environment(same_node=False)
    assert far["A"] == "1" and not {"PATH", "HOME", "LD_LIBRARY_PATH"} & far.keys()
    assert environment(same_node=False, env={"PATH": "/mine"})["PATH"] == "/mine"


def test_the_interface_that_owns_the_address_is_named_unless_the_user_did() -> None:
    seen = environment({"NCCL_SOCKET_IFNAME": "ib0"})
    assert (seen["GLOO_SOCKET_IFNAME"], seen["HCCL_SOCKET_IFNAME"], seen["HCCL_IF_IP"]) == ("eth0", "eth0", "10.0.0.2")
    assert seen["NCCL_SOCKET_IFNAME"] == "ib0"
    alone = rank_environment(
        Job(("true",), Path("/"), ranks=8),
        Device.CPU,
        PLACE,
        replace(MEETING, nodes=1),
        {},
        same_node=True,
        interface="eth0",
    )
    assert "GLOO_SOCKET_IFNAME" not in alone


def test_a_script_finds_its_node_and_no_rank() -> None:
    seen = environment(launcher=Launcher.SCRIPT)
    assert {name: seen[name] for name in ("NNODES", "NODE_RANK", "GROUP_RANK", "NPROC_PER_NODE")} == {
        "NNODES": "2", "NODE_RANK": "1", "GROUP_RANK": "1", "NPROC_PER_NODE": "4",
    }  # fmt: skip
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS"} & seen.keys()


def test_no_secret_is_recorded() -> None:
    secret = {"HF_TOKEN": "x", "AWS_SECRET": "x", "ASCEND_KEY": "x", "HCCL_PASSWORD": "x", "HOME": "x"}
    kept = {"ASCEND_HOME_PATH": "/usr", "HCCL_CONNECT_TIMEOUT": "1200", "OMP_NUM_THREADS": "1"}
    assert variables_for_record({**secret, **kept}) == kept
