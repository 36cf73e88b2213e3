"""Cluster files: three shapes, what is wrong in one, and in which words."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.core.job import Device, Fetch
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit.cluster_file import ClusterFileKind, read_cluster_file

OWN = "address: http://10.0.0.1:8265\naclcmp:\n  exec: python run.py\n"
LAUNCHER = """
cluster_name: lab
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}
head_start_ray_commands: [ray start --head --dashboard-port=9265]
metadata: {aclcmp: {exec: bash run.sh, ranks: 16, device: npu}}
"""
KUBERAY = """
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: lab}
spec: {}
aclcmp: {exec: bash run.sh}
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "cluster.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        (OWN, ClusterFileKind.OWN, "http://10.0.0.1:8265"),
        ("aclcmp: {exec: x}", ClusterFileKind.OWN, None),
        (LAUNCHER, ClusterFileKind.LAUNCHER, "http://10.0.0.1:9265"),
        (LAUNCHER.replace("10.0.0.1", "fd00::1", 1), ClusterFileKind.LAUNCHER, "http://[fd00::1]:9265"),
        (LAUNCHER.replace("--dashboard-port=9265", ""), ClusterFileKind.LAUNCHER, "http://10.0.0.1:8265"),
        ("cluster_name: x\nprovider: {type: aws}\nmetadata: {aclcmp: {exec: x}}", ClusterFileKind.LAUNCHER, None),
        (KUBERAY, ClusterFileKind.KUBERAY, None),
    ],
)
def test_shapes(weird_path: Path, text: str, kind: ClusterFileKind, address: str | None) -> None:
    found = read_cluster_file(written(weird_path, text))
    assert (found.kind, found.address) == (kind, address)


def test_values_are_what_stands_there(tmp_path: Path) -> None:
    job = "  ranks: 4\n  nodes: 2\n  timeout: 90\n  strict: yes\n  fetch: shards\n"
    env = "  env: {A: 0200, B: 1.10, C: true, D: '', E: 2024-01-01}\n"
    section = read_cluster_file(written(tmp_path, OWN + job + env)).section
    assert section.env == {"A": "0200", "B": "1.10", "C": "true", "D": "", "E": "2024-01-01"}
    assert (section.ranks, section.nodes, section.timeout, section.strict) == (4, 2, 90, True)
    assert section.fetch is Fetch.SHARDS and section.device is Device.AUTO


def test_the_command_line_counts(tmp_path: Path) -> None:
    path = written(tmp_path, OWN + "  ranks: 4\n  env: {A: '1', B: '2'}\n")
    section = read_cluster_file(path, {"ranks": 8, "env": {"B": "3"}}).section
    assert section.ranks == 8 and section.env == {"A": "1", "B": "3"} and section.exec == "python run.py"
    assert read_cluster_file(written(tmp_path, "aclcmp: {}"), {"exec": "x"}).section.exec == "x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN + "  rank: 4\n", "aclcmp.rank is not known; did you mean ranks?"),
        (OWN + "  no-compare: true\n", "aclcmp.no-compare is not known; did you mean no_compare?"),
        (OWN + "  zzz: 4\n", "known are exec, ranks"),
        ("adress: x\naclcmp: {exec: x}", "adress is not known; did you mean address?"),
        ("addres: x\naclcmq: {exec: x}", "did you mean"),
        (OWN + "  ranks: many\n", "aclcmp.ranks: "),
        (OWN + "  ranks: 0\n", "aclcmp.ranks: "),
        (OWN + "  ranks: 3\n  nodes: 2\n", "3 ranks cannot be spread evenly over 2 nodes"),
        (OWN + "  nodes:\n", "aclcmp.nodes"),
        (OWN + "  device: tpu\n", "aclcmp.device: "),
        (OWN + "  strict: maybe\n", "aclcmp.strict: "),
        (OWN + "  timeout: nan\n", "aclcmp.timeout: "),
        (OWN + "  env: {RANK: '1'}\n", "cannot be overridden"),
        (OWN + "  env: {ASCEND_RT_VISIBLE_DEVICES: '0'}\n", "cannot be overridden"),
        (OWN + "  env: {CUDA_VISIBLE_DEVICES: '0'}\n", "cannot be overridden"),
        (OWN + "  env: {'A=B': '1'}\n", "is not a variable's name"),
        (OWN + "  env: [A, B]\n", "aclcmp.env: "),
        (OWN + "  output: runs\n", "absolute or below ~/"),
        (OWN + "  labels: 'a('\n", "not a regular expression"),
        (OWN + "  tasks: 3-1\n", "empty range"),
        (OWN + "  fetch: everything\n", "aclcmp.fetch: "),
        (OWN + "  exec: again\n", "'exec' stands here twice"),
        ("address: x\naclcmp:\n  ranks: 2\n", "aclcmp.exec is missing"),
        ('address: x\naclcmp: {exec: "a \'b"}\n', "cannot be split into words"),
        ("address: x\naclcmp: {exec: ' '}\n", "give a command"),
        ("address: http://x", "aclcmp is missing"),
        ("address: x\naclcmp: [1]", "the job is a mapping"),
        ("address: [x]\naclcmp: {exec: x}", "address: give the URL"),
        ("", "a cluster file is a mapping"),
        ("- 1", "a cluster file is a mapping"),
        ("[" * 5000, "cluster.yaml"),
        ("a: b: c", "cluster.yaml:1: "),
        (OWN + "---\na: b\n", "expected a single document in the stream"),
        (OWN + '  policy: "a\\0b"\n', "NUL"),
        ("cluster_name: &a [*a]\nprovider: {}\n", "recursive"),
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)),
            "aliases stand for",
        ),
        (
            "a0: &a0 {x: x}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30)),
            "aliases",
        ),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        ("x: " + "y" * (2 << 20), "more than 1 MiB"),
        ("something: else", "is none of"),
        (LAUNCHER + "aclcmp: {exec: x}", "below `metadata:`"),
        (LAUNCHER.replace("aclcmp: {", "aclcmq: {"), "metadata.aclcmp is missing"),
        (KUBERAY.replace("RayCluster", "RayService"), "RayService"),
        (KUBERAY.replace("ray.io/v1", "batch/v1"), "is not KubeRay's"),
        (KUBERAY + "specs: {}", "specs is not known; did you mean spec?"),
    ],
)
def test_what_is_wrong_and_where(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        read_cluster_file(path)
    assert words in str(raised.value) and str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_keys_are_merged_as_yaml_merges_them(tmp_path: Path) -> None:
    text = "cluster_name: a\nprovider: {}\nmetadata:\n  base: &b {exec: x, tasks: 0012}\n  aclcmp: {<<: *b, ranks: 2}\n"
    section = read_cluster_file(written(tmp_path, text)).section
    assert (section.exec, section.ranks, section.tasks) == ("x", 2, "0012")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_cluster_file(tmp_path / "none.yaml")
