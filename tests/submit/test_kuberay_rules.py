"""What KubeRay's operator refuses is not rendered, and the schema that holds it is as strict as a cluster."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit.cluster_file import read_cluster_file
from aclcmp.orchestrator.submit.kuberay.manifest import render
from aclcmp.orchestrator.submit.kuberay.operator_rules import count_pods

HERE = Path(__file__).parent
SCHEMA = jsonschema.Draft202012Validator(json.loads((HERE / "rayjob.schema.json").read_text()))
ASCEND = HERE.parent.parent / "cluster_configs/kuberay-ascend.yaml"
WHOLE = yaml.safe_load(render(read_cluster_file(ASCEND)))
HEAD, WORKER = "spec.rayClusterSpec.headGroupSpec", "spec.rayClusterSpec.workerGroupSpecs.0"
TTL: dict[str, object] = {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": 9}


def at(found: Any, place: str) -> Any:
    for each in place.split("."):
        found = found[int(each) if each.isdecimal() else each]
    return found


def job(folder: Path, cluster: dict[str, object], **spec: object) -> Path:
    """The ready file as a RayJob, with other keys in its job and in its cluster."""
    found = yaml.safe_load(ASCEND.read_text())
    found |= {"kind": "RayJob", "spec": {"rayClusterSpec": found["spec"] | cluster} | spec}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(found))
    return path


def rendered(path: Path, **override: object) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load(render(read_cluster_file(path, override)))
    SCHEMA.validate(manifest)
    return manifest


def selecting(folder: Path, **spec: object) -> Path:
    found = {"apiVersion": "ray.io/v1", "kind": "RayJob", "spec": spec, "aclcmp": {"exec": "x"}}
    (folder / "job.yaml").write_text(yaml.safe_dump(found))
    return folder / "job.yaml"


@pytest.mark.parametrize(
    ("cluster", "spec", "words"),
    [
        ({}, {"ttlSecondsAfterFinished": 9}, "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true"),
        ({}, {"suspend": True}, "suspend needs shutdownAfterJobFinishes: true"),
        ({"authOptions": {"enableK8sTokenAuth": True}}, {}, "authOptions.enableK8sTokenAuth is for RayClusters"),
        ({"upgradeStrategy": {"type": "Recreate"}}, {}, "upgradeStrategy is for RayClusters"),
        ({}, {"runtimeEnvYAML": "[a"}, "spec.runtimeEnvYAML is no text with a mapping in YAML"),
        ({}, {"runtimeEnvYAML": "- a"}, "spec.runtimeEnvYAML is no text with a mapping in YAML"),
        ({"rayVersion": "2.51.1"}, {}, 'rayVersion: 2.51.1: a token needs "2.52.0" or newer'),
        ({"rayVersion": 2.6}, {}, 'rayVersion: 2.6: a token needs "2.52.0" or newer, in quotes'),
        ({}, {"clusterSelector": {"ray.io/cluster": "lab"}}, "give rayClusterSpec or clusterSelector"),
    ],
)
def test_refused(tmp_path: Path, cluster: dict[str, object], spec: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        render(read_cluster_file(job(tmp_path, cluster, **spec)))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"clusterSelector": {"app": "lab"}}, "clusterSelector names no cluster: give `ray.io/cluster: NAME`"),
        ({"clusterSelector": {"ray.io/cluster": "lab"}, "backoffLimit": 1}, "backoffLimit does not go with"),
        ({"clusterSelector": {"ray.io/cluster": "lab"}, "suspend": True} | TTL, "suspend does not go with"),
    ],
)
def test_refused_where_a_cluster_is_selected(tmp_path: Path, spec: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        render(read_cluster_file(selecting(tmp_path, **spec)))


def test_a_job_that_is_stopped_has_time_to_report(tmp_path: Path) -> None:
    selected = {"clusterSelector": {"ray.io/cluster": "mine"}}
    for path in (
        job(tmp_path, {}),
        selecting(tmp_path, **selected),
        selecting(tmp_path, **selected, runtimeEnvYAML=""),
    ):
        manifest = rendered(path)
        assert yaml.safe_load(manifest["spec"]["runtimeEnvYAML"])["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "300"}
    own = "working_dir: a.zip\nenv_vars: {A: b, RAY_JOB_STOP_WAIT_TIME_S: '9'}\n"
    manifest = rendered(job(tmp_path, {}, runtimeEnvYAML=own))
    assert yaml.safe_load(manifest["spec"]["runtimeEnvYAML"]) == yaml.safe_load(own)


def test_a_token_is_asked_for_where_the_mode_is_not_said(tmp_path: Path) -> None:
    manifest = rendered(job(tmp_path, {"authOptions": {"secretName": "mine"}, "rayVersion": None}))
    assert manifest["spec"]["rayClusterSpec"]["authOptions"] == {"secretName": "mine", "mode": "token"}


def test_a_groups_own_resources_are_added_to(tmp_path: Path) -> None:
    found = yaml.safe_load(ASCEND.read_text())["spec"]
    found["headGroupSpec"]["resources"] = {"memory": "8Gi"}
    found["workerGroupSpecs"][0]["resources"] = {"cpu": "64"}
    manifest = rendered(job(tmp_path, found))
    head, worker = at(manifest, HEAD), at(manifest, WORKER)
    assert head["resources"] == {"memory": "8Gi", "CPU": "0"} and head["rayStartParams"] == {}
    assert worker["resources"] == {"cpu": "64", "NPU": "8"} and worker["rayStartParams"] == {}


def test_at_least_is_at_most_at_most(tmp_path: Path) -> None:
    found = yaml.safe_load(ASCEND.read_text())["spec"]
    group = found["workerGroupSpecs"][0]
    del group["minReplicas"]
    group |= {"replicas": 4, "maxReplicas": 2}
    assert at(rendered(job(tmp_path, found)), WORKER)["minReplicas"] == 2
    del group["maxReplicas"]
    group |= {"replicas": 2, "minReplicas": 3}
    assert at(rendered(job(tmp_path, found)), WORKER)["maxReplicas"] == 3


def test_no_workers_at_all(tmp_path: Path) -> None:
    found = yaml.safe_load(ASCEND.read_text())
    group = found["spec"]["workerGroupSpecs"][0] | {"replicas": 0, "minReplicas": 0}
    del group["template"]["spec"]["containers"][0]["resources"], found["aclcmp"]["nodes"]
    found["spec"]["workerGroupSpecs"] = [group]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(found))
    with pytest.raises(UsageError, match="16 ranks need as many devices; the workers have 0"):
        render(read_cluster_file(tmp_path / "x.yaml"))


@pytest.mark.parametrize(
    ("group", "grows", "count"),
    [
        ({"replicas": 2}, False, 2),
        ({"replicas": 2, "numOfHosts": 4}, False, 8),
        ({"replicas": 4, "maxReplicas": 3}, False, 3),
        ({"minReplicas": 2, "maxReplicas": 3}, False, 2),
        ({"minReplicas": 2, "maxReplicas": 3}, True, 3),
        ({"replicas": 2}, True, 2),
        ({}, False, 0),
    ],
)
def test_pods_of_a_group(group: dict[str, int], grows: bool, count: int) -> None:
    assert count_pods(group, grows=grows) == count


@pytest.mark.parametrize(
    "place",
    [
        "spec",
        "spec.rayClusterSpec",
        "spec.rayClusterSpec.authOptions",
        HEAD,
        WORKER,
        f"{HEAD}.template",
        f"{HEAD}.template.spec",
        f"{WORKER}.template.spec.containers.0",
        f"{WORKER}.template.spec.containers.0.resources",
        f"{WORKER}.template.spec.volumes.0.emptyDir",
    ],
)
def test_the_schema_refuses_unknown_fields(place: str) -> None:
    manifest = copy.deepcopy(WHOLE)
    at(manifest, place)["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        SCHEMA.validate(manifest)


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ("metadata", {"name": "9to5"}),
        ("spec", {"ttlSecondsAfterFinished": 9}),
        ("spec", {"suspend": True}),
        ("spec", {"submissionMode": "HttpMode"}),
        ("spec", {"submissionMode": "SidecarMode", "submitterConfig": {}}),
        ("spec", {"clusterSelector": {"ray.io/cluster": "lab"}}),
        ("spec", {"activeDeadlineSeconds": 0}),
        ("spec", {"deletionStrategy": {}}),
        ("spec", {"deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}}),
        ("spec", {"managedBy": "me"}),
        ("spec.rayClusterSpec", {"rayVersion": "2.51.9"}),
        ("spec.rayClusterSpec", {"upgradeStrategy": {"type": "None"}}),
        ("spec.rayClusterSpec", {"authOptions": {}}),
        ("spec.rayClusterSpec.authOptions", {"enableK8sTokenAuth": True}),
        (HEAD, {"resources": {"CPU": "4"}}),
        (HEAD, {"rayStartParams": {"labels": "a=b"}}),
        (HEAD, {"rayStartParams": {"num-cpus": 0}}),
        (WORKER, {"idleTimeoutSeconds": 9}),
        (WORKER, {"replicas": "2"}),
        (WORKER, {"resources": {"NPU": "8"}}),
    ],
)
def test_the_schema_refuses_what_the_operator_refuses(place: str, keys: dict[str, object]) -> None:
    manifest = copy.deepcopy(WHOLE)
    at(manifest, place).update(keys)
    assert not SCHEMA.is_valid(manifest)


@pytest.mark.parametrize(
    ("place", "keys"),
    [
        ("spec", TTL | {"suspend": True, "preRunningDeadlineSeconds": 600, "submitterConfig": {"backoffLimit": 1}}),
        (
            "spec",
            {"deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}]}},
        ),
        ("spec.rayClusterSpec", {"rayVersion": "2.52.0", "managedBy": "ray.io/kuberay-operator"}),
        ("spec.rayClusterSpec", {"autoscalerOptions": {"version": "v2", "upscalingMode": "Default"}}),
        ("spec.rayClusterSpec", {"tlsOptions": {"enabled": True}, "networkPolicy": {"mode": "DenyAllIngress"}}),
        (HEAD, {"labels": {"zone": "a"}, "enableIngress": True, "ingressOptions": {"pathType": "Prefix"}}),
        (WORKER, {"numOfHosts": 2, "scaleStrategy": {"workersToDelete": ["x"]}, "priority": 0}),
        (f"{WORKER}.template.spec", {"hostNetwork": True, "tolerations": [{"key": "npu", "operator": "Exists"}]}),
    ],
)
def test_the_schema_takes_what_the_operator_takes(place: str, keys: dict[str, object]) -> None:
    manifest = copy.deepcopy(WHOLE)
    at(manifest, place).update(keys)
    SCHEMA.validate(manifest)
