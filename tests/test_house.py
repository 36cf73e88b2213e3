"""The rules of the house: who imports whom, what is public, which files the documents name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("plan", "judge")
PURE = {"labeling", "numpy", "h5py", "aclcmp"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Names that a module imports; without `lazy` only those at import time of the module."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree)) if lazy else list(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("path", modules("labeling"), ids=str)
def test_labeling_knows_nothing_of_the_outside(path: Path) -> None:
    for name in imports(path):
        assert not name.startswith(("aclcmp.orchestrator", "ray", "rich", "typer", "pydantic", "numba")), name
    for name in imports(path, lazy=False):
        assert not name.startswith("torch"), name


@pytest.mark.parametrize("path", [p for stage in STAGES for p in modules(f"orchestrator/{stage}")], ids=str)
def test_plan_and_judge_are_pure(path: Path) -> None:
    for name in imports(path):
        assert name.split(".")[0] not in ("ray", "os", "io", "pathlib", "shutil", "subprocess", "rich", "h5py"), name
        assert not name.startswith(("aclcmp.orchestrator.launch", "aclcmp.orchestrator.report")), name
        if "/plan/" in str(path):
            assert not name.startswith(("aclcmp.orchestrator.judge", "aclcmp.orchestrator.compare")), name
        if "/judge/" in str(path):
            assert not name.startswith(
                ("aclcmp.orchestrator.compare.actors.actor_pool", "aclcmp.orchestrator.compare.pair")
            ), name


@pytest.mark.parametrize("path", modules("orchestrator/compare"), ids=str)
def test_compare_needs_no_torch_and_looks_not_ahead(path: Path) -> None:
    for name in imports(path):
        assert not name.startswith(("torch", "aclcmp.orchestrator.judge", "aclcmp.orchestrator.report")), name
        assert not name.startswith("aclcmp.orchestrator.launch"), name


@pytest.mark.parametrize("path", modules("orchestrator/report"), ids=str)
def test_report_neither_launches_nor_compares(path: Path) -> None:
    for name in imports(path):
        assert not name.startswith(
            ("ray", "torch", "aclcmp.orchestrator.launch", "aclcmp.orchestrator.cluster.cluster")
        ), name


@pytest.mark.parametrize("path", modules("orchestrator/doctor"), ids=str)
def test_doctor_looks_and_its_checks_are_pure(path: Path) -> None:
    for name in imports(path):
        assert not name.startswith(("torch", "aclcmp.orchestrator.launch", "aclcmp.orchestrator.report")), name
        if path.stem.endswith(("checks", "findings")):
            assert name.split(".")[0] not in ("os", "pathlib", "socket", "subprocess", "psutil"), name


def test_ray_appears_only_where_processes_are_placed() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in modules("orchestrator")
        if any(name.split(".")[0] == "ray" for name in imports(path))
    }
    allowed = (
        "orchestrator/cluster/cluster.py",
        "orchestrator/cluster/ray_start.py",
        "orchestrator/launch/",
        "orchestrator/submit/",
    )
    allowed += ("orchestrator/compare/actors/actor_pool.py", "orchestrator/compare/actors/comparison.py")
    allowed += ("orchestrator/transfer/pull.py",)
    assert all(user.startswith(allowed) for user in users), users
    for path in modules("orchestrator"):
        assert not any(name.split(".")[0] == "ray" for name in imports(path, lazy=False)), f"{path}: import Ray lazily"


def test_one_module_per_file_format() -> None:
    h5py_users = {
        str(path.relative_to(ROOT))
        for folder in ("labeling", "orchestrator")
        for path in modules(folder)
        if any(name.split(".")[0] == "h5py" for name in imports(path))
    }
    assert all(user.startswith(("labeling/shard/", "orchestrator/report/")) for user in h5py_users), h5py_users


def test_exported_names_are_frozen() -> None:
    import aclcmp

    assert aclcmp.__all__ == ["Partial", "Replicate", "Shard", "gen_id", "perturb", "set_label", "set_task_id", "watch"]
    assert all(hasattr(aclcmp, name) for name in aclcmp.__all__)


@pytest.mark.parametrize("path", sorted(p for p in ROOT.rglob("*.md") if not {".venv", ".git"} & set(p.parts)), ids=str)
def test_links_in_documents_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_no_pickle_no_eval_no_shell() -> None:
    for folder in ("labeling", "orchestrator"):
        for path in modules(folder):
            text = path.read_text()
            assert "pickle" not in set(imports(path)), path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func)
                    assert name not in ("eval", "exec", "os.system", "os.popen"), f"{path}: {name}"
                    shell = [k for k in node.keywords if k.arg == "shell"]
                    assert not shell, f"{path}: shell="
