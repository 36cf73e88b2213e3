"""The RayJob manifest: what it holds for NPUs and for GPUs, and that a cluster would drop nothing of it."""

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit.cluster_file import read_cluster_file
from aclcmp.orchestrator.submit.kuberay.manifest import render

HERE = Path(__file__).parent
SCHEMA = json.loads((HERE / "rayjob.schema.json").read_text())
ASCEND = HERE.parent.parent / "cluster_configs/kuberay-ascend.yaml"


def rendered(path: Path, **override: object) -> tuple[str, dict[str, Any]]:
    text = render(read_cluster_file(path, override))
    manifest = yaml.safe_load(text)
    jsonschema.validate(manifest, SCHEMA)
    return text, manifest


def changed(folder: Path, change: str, **keys: object) -> Path:
    """The ready file with something else in it, by a path such as `spec.headGroupSpec`."""
    found = yaml.safe_load(ASCEND.read_text())
    place = found
    *parents, last = (int(each) if each.isdecimal() else each for each in change.split("."))
    for each in parents:
        place = place[each]
    place[last].update(keys) if keys else place.pop(last)
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(found))
    return path


def container(manifest: dict[str, Any], group: str) -> dict[str, Any]:
    spec = manifest["spec"]["rayClusterSpec"]
    found = spec["headGroupSpec"] if group == "head" else spec["workerGroupSpecs"][0]
    pod: dict[str, Any] = found["template"]["spec"]["containers"][0]
    return pod


def variables(manifest: dict[str, Any], group: str) -> dict[str, Any]:
    return {
        each["name"]: each.get("value", each.get("valueFrom")) for each in container(manifest, group).get("env", ())
    }


def test_ascend() -> None:
    text, manifest = rendered(ASCEND)
    spec, rays = manifest["spec"], manifest["spec"]["rayClusterSpec"]
    assert spec["submissionMode"] == "HTTPMode" and spec["shutdownAfterJobFinishes"] is False
    words = shlex.split(spec["entrypoint"])
    assert words[:8] == ["aclcmp", "run", "--exec", "bash /opt/model/run.sh", "--ranks", "16", "--nodes", "2"]
    assert rays["authOptions"] == {"mode": "token"}
    worker = rays["workerGroupSpecs"][0]
    # through YAML and then a shell, as the operator does it
    assert json.loads(shlex.split(f"ray start --resources={worker['rayStartParams']['resources']}")[2][12:]) == {
        "NPU": 8
    }
    assert container(manifest, "worker")["resources"]["limits"]["huawei.com/Ascend910"] == 8
    assert variables(manifest, "head")["ASCEND_VISIBLE_DEVICES"] == "void"
    assert "ASCEND_VISIBLE_DEVICES" not in variables(manifest, "worker")
    assert variables(manifest, "head")["RAY_health_check_timeout_ms"] == "3000"
    for group in (rays["headGroupSpec"], worker):
        pod = group["template"]["spec"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
        assert pod["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}]
    assert f"aclcmp attach {spec['jobId']}" in text and "kubectl apply" in text
    assert "Needs KubeRay 1.5.1" in text and 'get secret "$CLUSTER" -o' in text


def test_cuda(tmp_path: Path) -> None:
    limits = "spec.workerGroupSpecs.0.template.spec.containers.0.resources"
    path = changed(tmp_path, limits, limits={"nvidia.com/gpu": 8}, requests={})
    _, manifest = rendered(path, device="cuda")
    worker = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert container(manifest, "worker")["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert worker["rayStartParams"] == {} and "ASCEND_VISIBLE_DEVICES" not in variables(manifest, "head")
    assert rendered(path, device="auto")[1]["spec"]["rayClusterSpec"] == manifest["spec"]["rayClusterSpec"]


def test_devices_that_are_left_out_are_added(tmp_path: Path) -> None:
    path = changed(tmp_path, "spec.workerGroupSpecs.0.template.spec.containers.0.resources")
    _, manifest = rendered(path, ranks=8)
    assert container(manifest, "worker")["resources"] == {"limits": {"huawei.com/Ascend910": 4}}
    assert rendered(path, device="cuda")[1] and rendered(path, device="cpu", ranks=2)[1]


def test_secrets_come_from_a_secret() -> None:
    text, manifest = rendered(ASCEND, env={"HF_TOKEN": "hush", "A": "b"})
    assert "hush" not in text and "--from-literal=HF_TOKEN=..." in text and "--env A=b" in text
    assert variables(manifest, "head")["HF_TOKEN"] == {"secretKeyRef": {"name": "acl-env", "key": "HF_TOKEN"}}


def test_a_rayjob_keeps_what_it_says(tmp_path: Path) -> None:
    found = yaml.safe_load(ASCEND.read_text())
    rays = found["spec"]
    rays["workerGroupSpecs"][0]["template"]["spec"] |= {
        "volumes": [{"name": "mine", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}}],
        "nodeSelector": {"a": "b"},
    }
    rays["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "mine", "mountPath": "/dev/shm"}
    ]
    rays["authOptions"] = {"mode": "token", "secretName": "mine"}
    found |= {"kind": "RayJob", "spec": {"rayClusterSpec": rays, "backoffLimit": 1}}
    found["spec"] |= {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": 60}
    before = copy.deepcopy(found)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(found))
    text, manifest = rendered(tmp_path / "job.yaml")
    assert "Needs KubeRay 1.6.0" in text and "get secret mine -o" in text  # older ones know no secretName
    assert "are gone 60 s after the job's end" in text
    spec = manifest["spec"]
    assert (spec["ttlSecondsAfterFinished"], spec["backoffLimit"]) == (60, 1)
    assert spec["rayClusterSpec"]["authOptions"] == before["spec"]["rayClusterSpec"]["authOptions"]
    pod = spec["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert [each["name"] for each in pod["volumes"]] == ["mine"] and pod["nodeSelector"] == {"a": "b"}


def test_a_cluster_that_runs_is_selected(tmp_path: Path) -> None:
    text = (
        "apiVersion: ray.io/v1\nkind: RayJob\nmetadata: {name: x}\n"
        "spec: {clusterSelector: {ray.io/cluster: lab}}\naclcmp: {exec: x}"
    )
    (tmp_path / "job.yaml").write_text(text)
    first, second = (rendered(tmp_path / "job.yaml")[1]["spec"] for _ in range(2))
    assert "rayClusterSpec" not in first and first["jobId"] != second["jobId"]
    with pytest.raises(UsageError, match="HF_TOKEN may be secret"):
        rendered(tmp_path / "job.yaml", env={"HF_TOKEN": "hush"})


def test_without_a_token_it_warns(tmp_path: Path) -> None:
    found = yaml.safe_load(ASCEND.read_text())
    found["spec"]["authOptions"] = {"mode": "disabled"}
    (tmp_path / "open.yaml").write_text(yaml.safe_dump(found))
    assert "# WARNING: authOptions.mode is not token" in rendered(tmp_path / "open.yaml")[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("spec", "spec is missing"),
        ("spec.headGroupSpec", "spec.headGroupSpec.template.spec.containers is missing"),
        ("spec.workerGroupSpecs", "spec.workerGroupSpecs is missing"),
        ("spec.workerGroupSpecs.0.template.spec.containers.0.image", "without name and image"),
    ],
)
def test_what_is_missing(tmp_path: Path, change: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        render(read_cluster_file(changed(tmp_path, change)))


@pytest.mark.parametrize(
    ("place", "keys", "words"),
    [
        ("spec.workerGroupSpecs.0", {"replicas": "x"}, "is not what KubeRay takes"),
        ("spec.workerGroupSpecs.0", {"rayStartParams": ["x"]}, "is not what KubeRay takes"),
        ("spec.headGroupSpec.template.spec.containers.0", {"env": ["x"]}, "is not what KubeRay takes"),
        (
            "spec.workerGroupSpecs.0.template.spec.containers.0.resources",
            {"limits": {"huawei.com/Ascend910": "x"}},
            "is not what KubeRay takes",
        ),
        ("metadata", {"name": "a\nb: c"}, "metadata.name: Kubernetes takes"),
        ("metadata", {"name": 7}, "metadata.name: Kubernetes takes"),
        ("metadata", {"name": "9to5"}, "metadata.name: Kubernetes takes"),
        ("metadata", {"name": "a.b"}, "metadata.name: Kubernetes takes"),
        ("metadata", {"name": "a" * 45}, "metadata.name: Kubernetes takes .* at most 44"),
        ("metadata", {"namespace": "a b"}, "metadata.namespace: Kubernetes takes"),
    ],
)
def test_what_is_of_another_kind(tmp_path: Path, place: str, keys: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        render(read_cluster_file(changed(tmp_path, place, **keys)))


def test_what_is_empty_is_filled(tmp_path: Path) -> None:
    place = "spec.workerGroupSpecs.0.template.spec.containers.0"
    path = changed(tmp_path, place, resources={"limits": None}, volumeMounts=None)
    _, manifest = rendered(path, ranks=8)
    assert container(manifest, "worker")["resources"]["limits"] == {"huawei.com/Ascend910": 4}
    rendered(changed(tmp_path, place, resources=None))
    assert rendered(changed(tmp_path, "spec", authOptions=None))[1]["spec"]["rayClusterSpec"]["authOptions"]
    assert rendered(changed(tmp_path, "metadata.name"))[1]["metadata"] == {"name": "aclcmp"}


@pytest.mark.parametrize("device", ["npu", "cpu"])
def test_there_are_workers_where_the_file_names_no_number(tmp_path: Path, device: str) -> None:
    found = yaml.safe_load(ASCEND.read_text())
    for name in ("replicas", "minReplicas", "maxReplicas"):
        del found["spec"]["workerGroupSpecs"][0][name]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(found))
    group = rendered(tmp_path / "x.yaml", device=device)[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert [group[name] for name in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 2]


def test_devices_are_counted_by_node_and_by_group(tmp_path: Path) -> None:
    found = yaml.safe_load(ASCEND.read_text())
    groups = found["spec"]["workerGroupSpecs"]
    groups.append(copy.deepcopy(groups[0]) | {"groupName": "more", "replicas": 1, "minReplicas": 1, "maxReplicas": 3})
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(found))
    _, manifest = rendered(path, ranks=24, nodes=3)
    for group in manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["rayStartParams"]["resources"] == '"{\\"NPU\\": 8}"'
    with pytest.raises(UsageError, match="24 ranks on 2 nodes need 12 devices on each, and 0 workers have so many"):
        render(read_cluster_file(path, {"ranks": 24, "nodes": 2}))
    found["spec"]["enableInTreeAutoscaling"] = True
    path.write_text(yaml.safe_dump(found))
    rendered(path, ranks=40, nodes=5)


def test_a_volume_that_has_the_name_already(tmp_path: Path) -> None:
    found = yaml.safe_load(ASCEND.read_text())
    pod = found["spec"]["workerGroupSpecs"][0]["template"]["spec"]
    pod["volumes"] = [{"name": "shm", "emptyDir": {}}]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(found))
    pod = rendered(tmp_path / "x.yaml")[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert len({each["name"] for each in pod["volumes"]}) == 2


def test_text_stays_text_for_kubectl(tmp_path: Path) -> None:
    """Its YAML takes more words for numbers and truths than ours."""
    place = "spec.workerGroupSpecs.0.template.spec.containers.0"
    values = ["1e3", "12E5", "y", "N", "0o17", "017", "1", "true"]
    path = changed(tmp_path, place, env=[{"name": f"A{n}", "value": value} for n, value in enumerate(values)])
    text, _ = rendered(path)
    assert all(f"value: '{value}'" in text for value in values) and "replicas: 2\n" in text


def test_names_in_the_commands(tmp_path: Path) -> None:
    path = changed(tmp_path, "metadata", namespace="lab")
    text, _ = rendered(path.rename(tmp_path / "a b\nc.yaml"))
    assert (
        "kubectl -n lab get rayjob acl" in text and "kubectl -n lab delete" in text and "a b\\nc.yaml' --render" in text
    )


def test_other_ways_of_submission_are_refused(tmp_path: Path) -> None:
    found = yaml.safe_load(ASCEND.read_text())
    found |= {"kind": "RayJob", "spec": {"rayClusterSpec": found["spec"], "submissionMode": "K8sJobMode"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(found))
    with pytest.raises(UsageError, match=r"spec\.submissionMode: K8sJobMode"):
        render(read_cluster_file(tmp_path / "x.yaml"))


def test_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="32 ranks need as many devices; the workers have 16"):
        render(read_cluster_file(ASCEND, {"ranks": 32}))
    with pytest.raises(UsageError, match="a manifest uploads nothing"):
        render(read_cluster_file(ASCEND, {"working_dir": "."}))
