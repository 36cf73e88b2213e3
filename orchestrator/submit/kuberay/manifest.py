"""From a KubeRay manifest with a job beside it to a complete RayJob manifest, as text for kubectl."""

from __future__ import annotations

import copy
import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any

import yaml

from aclcmp.orchestrator.cluster.ray_start import HEALTH_CHECKS, STOP_PATIENCE
from aclcmp.orchestrator.core.job import Device
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit.client import FETCH, ROLE, RUN_DIR
from aclcmp.orchestrator.submit.cluster_file import ClusterFile
from aclcmp.orchestrator.submit.kuberay.operator_rules import count_pods, give_resource, operator_refusal, wrong_name
from aclcmp.orchestrator.submit.submission import submission

_ASCEND, _ASCEND_KIND = "huawei.com/Ascend910", "huawei.com/Ascend"
_CUDA = "nvidia.com/gpu"
_SHARED_MEMORY = {"medium": "Memory", "sizeLimit": "8Gi"}

_HEAD = """\
# Made by `aclcmp submit {file} --render`. Needs KubeRay {since} or newer.
#   aclcmp submit {file} --render | kubectl apply -f -
#   CLUSTER=$({kubectl} get rayjob {name} -o jsonpath='{{.status.rayClusterName}}')
#   HEAD=$({kubectl} get raycluster "$CLUSTER" -o jsonpath='{{.status.head.serviceName}}')
#   {kubectl} port-forward "service/$HEAD" 8265 &
#   export RAY_AUTH_TOKEN=$({kubectl} get secret {token} -o jsonpath='{{.data.auth_token}}' | base64 -d)
#   aclcmp attach {job} --address http://127.0.0.1:8265        # its log, then its report
#   {kubectl} delete rayjob {name}                               # the run directory goes with the head's pod
"""
_SECRETS = """\
# Values that may be secret are not in here; put them into a Secret first:
#   {kubectl} create secret generic {secret} {literals}
"""
_OPEN = (
    "# WARNING: authOptions.mode is not token: whoever reaches the head's service can run anything on this cluster.\n"
)
_SHUTS_DOWN = (
    "# WARNING: shutdownAfterJobFinishes: the head's pod and its report are gone {seconds} s after the job's end.\n"
    "# Attach before, or let `output` lie on a volume.\n"
)


def render(cluster: ClusterFile) -> str:
    """Return the manifest, with comments that say how to use it. Raises UsageError for what cannot become one."""
    section = cluster.section
    if section.working_dir is not None:
        raise UsageError(
            f"{cluster.path}: aclcmp.working_dir: a manifest uploads nothing; build the script into the image, and "
            "give its path there in `exec`"
        )
    metadata = _metadata(cluster)
    name = metadata["name"]
    spec, rays = _specs(cluster)
    # On a cluster that stays, the operator takes an earlier job of the same id for this one, and runs nothing.
    job = submission(section, f"aclcmp-{name}" if rays is not None else f"aclcmp-{name}-{token_hex(2)}", Path())
    if rays is not None:
        try:
            _complete(cluster, rays)
            _give_secrets(rays, f"{name}-env", list(job.variables))
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # what the operator would refuse
            raise UsageError(f"{cluster.path}: spec is not what KubeRay takes: {error}") from None
    elif job.variables:
        raise UsageError(
            f"{cluster.path}: aclcmp.env: {', '.join(job.variables)} may be secret, and is not written into a "
            "manifest; give it to the head's container of the cluster that runs, and leave it out here"
        )
    spec |= {
        "entrypoint": job.entrypoint,
        "jobId": job.job_id,
        "metadata": {ROLE: "run", RUN_DIR: job.run_dir, FETCH: section.fetch.value},
    }
    # The operator's other modes pass the command through the shell of another pod first, which takes its quotes away.
    spec.setdefault("submissionMode", "HTTPMode")
    spec.setdefault("shutdownAfterJobFinishes", False)
    spec["runtimeEnvYAML"] = _with_patience(cluster, spec.get("runtimeEnvYAML"))
    if (why := operator_refusal(spec, rays)) is not None:
        raise UsageError(f"{cluster.path}: spec: KubeRay would refuse this job: {why}")
    if rays is not None:
        spec["rayClusterSpec"] = rays
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}
    kubectl = f"kubectl -n {metadata['namespace']}" if "namespace" in metadata else "kubectl"
    file = visible(shlex.quote(str(cluster.path)))
    secret = rays["authOptions"].get("secretName") if rays is not None else None
    # KubeRay 1.5.1 knows `mode` alone: kubectl refuses the manifest there, or the Secret is not used.
    since, token = ("1.6.0", shlex.quote(str(secret))) if secret else ("1.5.1", '"$CLUSTER"')
    text = _HEAD.format(file=file, name=name, job=job.job_id, kubectl=kubectl, since=since, token=visible(token))
    if job.variables:
        literals = " ".join(f"--from-literal={each}=..." for each in job.variables)
        text += _SECRETS.format(secret=f"{name}-env", literals=literals, kubectl=kubectl)
    if rays is not None and rays["authOptions"]["mode"] != "token":
        text += _OPEN
    if spec["shutdownAfterJobFinishes"] and rays is not None:
        text += _SHUTS_DOWN.format(seconds=spec.get("ttlSecondsAfterFinished") or 0)
    return text + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _with_patience(cluster: ClusterFile, given: Any) -> str:
    """Return the job's runtime environment with the time that it gets to compare after it is asked to stop."""
    try:
        found = (yaml.safe_load(given) if isinstance(given, str) else given) or {}
        return yaml.safe_dump({**found, "env_vars": {**STOP_PATIENCE, **(found.get("env_vars") or {})}})
    except (yaml.YAMLError, AttributeError, TypeError):
        raise UsageError(f"{cluster.path}: spec.runtimeEnvYAML is no text with a mapping in YAML") from None


class _Dumper(yaml.SafeDumper):
    """Write YAML without aliases, and in quotes every text that kubectl would read as something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)(e[-+]?\d+)?\Z", re.IGNORECASE),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?0o?[0-7_]+\Z"), list("-+0"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yn]\Z", re.IGNORECASE), list("yYnN"))


def _metadata(cluster: ClusterFile) -> dict[str, Any]:
    """Return the manifest's metadata, with a name. Raises UsageError for names that Kubernetes would refuse."""
    found = cluster.body.get("metadata") or {}
    if not isinstance(found, dict):
        raise UsageError(f"{cluster.path}: metadata is a mapping such as `name: acl`")
    metadata = {"name": "aclcmp", **found}
    for key in ("name", "namespace"):
        if key in metadata and (wrong := wrong_name(key, metadata[key])) is not None:
            raise UsageError(f"{cluster.path}: metadata.{key}: {wrong}")
    return metadata


def _specs(cluster: ClusterFile) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the RayJob's spec without its cluster, and the cluster's, which is None for a selected one that runs."""
    found = cluster.body.get("spec")
    if not isinstance(found, dict):
        raise UsageError(
            f"{cluster.path}: spec is missing; it describes the pods, see cluster_configs/kuberay-ascend.yaml"
        )
    found = copy.deepcopy(found)
    if cluster.body.get("kind") == "RayCluster":
        return {}, found
    rays = found.pop("rayClusterSpec", None)
    if not isinstance(rays, dict) and (rays is not None or "clusterSelector" not in found):
        raise UsageError(f"{cluster.path}: spec.rayClusterSpec is missing, or no mapping")
    if rays is not None and found.get("clusterSelector"):
        raise UsageError(f"{cluster.path}: spec: give rayClusterSpec or clusterSelector; the other would be ignored")
    if found.get("submissionMode") not in (None, "HTTPMode"):
        raise UsageError(
            f"{cluster.path}: spec.submissionMode: {found['submissionMode']} passes the command through the shell of "
            "another pod, which takes its quotes away; leave it out (HTTPMode)"
        )
    return {key: value for key, value in found.items() if value is not None}, rays


def _complete(cluster: ClusterFile, rays: dict[str, Any]) -> None:
    """Add to a cluster's pods what ranks need, where the file does not say it."""
    rays["rayVersion"] = rays.get("rayVersion") or version("ray")
    # Not left to the operator: its reference calls token the default, its types have none.
    auth = rays["authOptions"] = dict(rays.get("authOptions") or {})
    auth["mode"] = auth.get("mode") or "token"
    groups = rays.get("workerGroupSpecs") or []
    if not groups:
        raise UsageError(f"{cluster.path}: spec.workerGroupSpecs is missing; ranks run on workers")
    head = _group(cluster, rays.get("headGroupSpec"), "headGroupSpec")
    if not give_resource(head, "CPU", 0):  # no rank shall run there
        head["rayStartParams"].setdefault("num-cpus", "0")
    _add_environment(head, HEALTH_CHECKS)
    for number, found in enumerate(groups):
        _group(cluster, found, f"workerGroupSpecs[{number}]").setdefault("groupName", f"workers-{number}")
    first = groups[0]
    if first.get("replicas") is None:  # KubeRay's own default is none
        first["replicas"] = first.get("minReplicas") or cluster.section.nodes or 1
    for key, other, nearer in (("minReplicas", "maxReplicas", min), ("maxReplicas", "minReplicas", max)):
        if first.get(key) is None:  # the operator refuses less at most than at least
            given = first.get(other)
            first[key] = first["replicas"] if given is None else nearer(first["replicas"], given)
    device = _device(cluster, groups)
    if device is not Device.CPU:
        _give_devices(cluster, rays, device)
    if device is Device.NPU:
        for container in (each for group in (head, *groups) for each in _containers(group)):
            if not _limit(container, _ASCEND_KIND):
                _set_variable(container, {"name": "ASCEND_VISIBLE_DEVICES", "value": "void"})


def _group(cluster: ClusterFile, group: object, place: str) -> dict[str, Any]:
    """Check a group's pods and give them shared memory: Kubernetes' 64 MiB are too few for Ray and for HCCL."""
    try:
        assert isinstance(group, dict)
        pod = group["template"]["spec"]
        assert pod["containers"] and all(each["image"] and each["name"] for each in pod["containers"])
    except (AssertionError, KeyError, TypeError):
        raise UsageError(
            f"{cluster.path}: spec.{place}.template.spec.containers is missing, or one without name and image"
        ) from None
    if group.get("rayStartParams") is None:
        group["rayStartParams"] = {}
    ray = pod["containers"][0]
    if not any(str(each.get("mountPath")).rstrip("/") == "/dev/shm" for each in ray.get("volumeMounts") or ()):
        name = "aclcmp-shm" if any(each.get("name") == "shm" for each in pod.get("volumes") or ()) else "shm"
        ray["volumeMounts"] = [*(ray.get("volumeMounts") or ()), {"name": name, "mountPath": "/dev/shm"}]
        pod["volumes"] = [*(pod.get("volumes") or ()), {"name": name, "emptyDir": dict(_SHARED_MEMORY)}]
    return group


def _device(cluster: ClusterFile, groups: list[dict[str, Any]]) -> Device:
    """Return the device of ranks: the job's, else the one in the limits of the workers' containers."""
    if cluster.section.device is not Device.AUTO:
        return cluster.section.device
    containers = [each for group in groups for each in _containers(group)]
    if any(_limit(each, _ASCEND_KIND) for each in containers):
        return Device.NPU
    return Device.CUDA if any(_limit(each, _CUDA) for each in containers) else Device.CPU


def _give_devices(cluster: ClusterFile, rays: dict[str, Any], device: Device) -> None:
    """Give the first group's workers the devices that the ranks need, and tell Ray of NPUs."""
    section, groups = cluster.section, rays["workerGroupSpecs"]
    kind, name = (_ASCEND_KIND, _ASCEND) if device is Device.NPU else (_CUDA, _CUDA)
    workers = [count_pods(each, grows=bool(rays.get("enableInTreeAutoscaling"))) for each in groups]
    container = _containers(groups[0])[0]
    if not _limit(container, kind):
        resources = container["resources"] = container.get("resources") or {}
        count = -(-section.ranks // (section.nodes or workers[0] or 1))
        resources["limits"] = {**(resources.get("limits") or {}), name: count}
    limits = [_limit(_containers(each)[0], kind) for each in groups]
    there = sum(count * limit for count, limit in zip(workers, limits, strict=True))
    if there < section.ranks:
        raise UsageError(
            f"{cluster.path}: {section.ranks} ranks need as many devices; the workers have {there}: give more "
            f"`replicas`, or more {name} in their limits"
        )
    if section.nodes is not None:
        each_needs = section.ranks // section.nodes
        able = sum(count for count, limit in zip(workers, limits, strict=True) if limit >= each_needs)
        if able < section.nodes:
            raise UsageError(
                f"{cluster.path}: {section.ranks} ranks on {section.nodes} nodes need {each_needs} devices on each, "
                f"and {able} workers have so many: give more {name} in their limits, more `replicas`, or other `nodes`"
            )
    for group in groups if device is Device.NPU else ():
        count = _limit(_containers(group)[0], kind)
        # Ray finds NPUs by itself only with CANN, the operator never. In quotes twice: it goes through a shell line.
        if count and not give_resource(group, "NPU", count):
            group["rayStartParams"].setdefault("resources", json.dumps(json.dumps({"NPU": count})))


def _give_secrets(rays: dict[str, Any], secret: str, names: list[str]) -> None:
    """Let the head's container, and so the job, have variables from a Secret."""
    container = _containers(rays["headGroupSpec"])[0]
    for name in names:
        source = {"secretKeyRef": {"name": secret, "key": name}}
        _set_variable(container, {"name": name, "valueFrom": source})


def _add_environment(group: dict[str, Any], variables: dict[str, str]) -> None:
    for name, value in variables.items():
        _set_variable(_containers(group)[0], {"name": name, "value": value})


def _set_variable(container: dict[str, Any], variable: dict[str, Any]) -> None:
    """Set a variable where the file does not."""
    env = container.get("env") or []
    if all(each.get("name") != variable["name"] for each in env):
        container["env"] = [*env, variable]


def _containers(group: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = group["template"]["spec"]["containers"]
    return found


def _limit(container: dict[str, Any], kind: str) -> int:
    """Return the number of devices of a kind that a container gets."""
    limits = (container.get("resources") or {}).get("limits") or {}
    return sum(int(count) for name, count in limits.items() if str(name).startswith(kind))
