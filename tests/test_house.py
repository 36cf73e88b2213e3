"""The rules of the house: who imports whom, what is public, which files the documents name."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BELOW = {"labeling", "errors", "interrupts"}
"""What every folder of the orchestrator may import; labeling imports none of them."""
MAY_IMPORT: dict[str, set[str]] = {
    "labeling": set(),
    "errors": {"labeling"},
    "interrupts": set(),
    "dumps": set(),
    "core": set(),
    "run": {"core", "dumps"},
    "cluster": {"core", "run"},
    "terminal": {"core", "cluster"},
    "plan": {"core"},
    "judge": {"core"},
    "weights": {"core"},
    "compare": {"core", "run", "cluster"},
    "launch": {"core", "run", "cluster"},
    "report": {"core", "run", "terminal"},
    "idmap": {"plan", "compare", "core"},
    "inputs": {"plan", "idmap", "judge", "core"},
    "engines": {"core", "run", "inputs"},
    "bisect": set(),
    "case": {"core", "compare", "dumps"},
    "transfer": {"core", "run", "cluster", "terminal"},
    "pipeline": {"core", "dumps", "run", "cluster", "terminal", "plan", "judge", "compare", "launch", "report"}
    | {"weights", "idmap", "inputs", "case", "transfer"},
    "live": {"core", "run", "cluster", "terminal", "plan", "judge", "compare", "launch", "report", "pipeline"},
    "submit": {"core", "run", "cluster", "terminal", "inputs", "transfer"},
    "doctor": {"core", "cluster", "terminal", "submit"},
    "in_process": {"core", "run", "cluster", "terminal", "plan", "judge", "compare", "report", "inputs", "pipeline"},
}
"""Who may import whom, by folders; cli may import all. No stage imports another."""
KEPT = {"aclcmp", "benchmarks", "changelog.d", "cluster_configs", "docs", "examples", "scripts", "tests"}
"""Folders beside the product."""
PURE = ("core", "plan", "judge", "weights")
NOT_PURE = ("ray", "h5py", "rich", "xxhash", "torch", "typer", "psutil", "yaml")


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Names that a module imports; without `lazy` only those at import time of the module."""
    for node in ast.walk(parsed(path)) if lazy else parsed(path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def folder_of(module: str) -> str:
    """The folder, or the loose file, of one of our modules by its dotted name."""
    parts = module.split(".")
    return "labeling" if parts[1:2] == ["labeling"] else ".".join(parts[2:3])


def name_of(path: Path) -> str:
    parts = ("aclcmp", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", [*modules("labeling"), *modules("orchestrator")], ids=str)
def test_folders_import_what_the_table_allows(path: Path) -> None:
    here = folder_of(name_of(path))
    if here in ("", "cli"):
        return
    allowed = MAY_IMPORT[here] | {here} | (BELOW if here not in BELOW else set())
    for name in imports(path):
        if name.startswith(("aclcmp.labeling", "aclcmp.orchestrator.")):
            assert folder_of(name) in allowed, f"{here} imports {name}"


def without_circles(imported: dict[str, set[str]]) -> bool:
    """Whether names can be put into an order in which each comes behind all that it imports."""
    left = dict(imported)
    while left:
        free = [name for name, others in left.items() if not (others & left.keys()) - {name}]
        if not free:
            return False
        for name in free:
            del left[name]
    return True


def test_no_circles() -> None:
    paths = {name_of(path): path for folder in ("labeling", "orchestrator") for path in modules(folder)}
    assert without_circles(MAY_IMPORT)
    assert without_circles({name: {each for each in imports(path) if each in paths} for name, path in paths.items()})
    assert not without_circles({"a": {"b"}, "b": {"a"}})


def loaded(names: list[str], of: tuple[str, ...]) -> list[str]:
    """Which packages, of those named, importing our modules loads in a new process."""
    code = "import sys\n" + "".join(f"import {name}\n" for name in names)
    code += f"print(*(each for each in {of!r} if each in sys.modules))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("folder", PURE)
def test_pure_folders_load_nothing_that_is_not(folder: str) -> None:
    assert not loaded([name_of(path) for path in modules(f"orchestrator/{folder}")], NOT_PURE)


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("orchestrator.cli.app", ("numpy", "h5py", "pydantic", "ray", "torch", "rich.console")),
        ("orchestrator.compare.actors.actor", ("h5py", "pydantic", "ray", "rich", "typer", "torch")),
        ("orchestrator.launch.rank_host", ("h5py", "pydantic", "ray", "rich", "typer", "torch")),
        ("orchestrator.transfer.log_send", ("numpy", "h5py", "pydantic", "ray", "rich", "typer", "torch")),
        ("__main__", ("aclcmp.labeling", "aclcmp.orchestrator", "dataclasses")),  # it hears no Ctrl-C before
        ("labeling.api", ("ray", "rich", "typer", "pydantic", "torch")),
        ("orchestrator.in_process.recording", ("ray", "rich", "typer", "pydantic", "torch")),
        (
            "orchestrator.in_process.pytest_plugin",
            ("aclcmp.labeling", "numpy", "h5py", "ray", "rich", "pydantic", "torch"),
        ),
    ],
)
def test_what_starts_often_loads_little(module: str, never: tuple[str, ...]) -> None:
    assert not loaded([f"aclcmp.{module}"], never)


@pytest.mark.parametrize(
    "path", [p for stage in ("plan", "judge", "weights") for p in modules(f"orchestrator/{stage}")], ids=str
)
def test_plan_and_judge_touch_no_files(path: Path) -> None:
    for name in imports(path):
        assert name.split(".")[0] not in ("os", "io", "pathlib", "shutil", "subprocess"), name


@pytest.mark.parametrize("path", modules("labeling"), ids=str)
def test_labeling_loads_little_into_the_users_process(path: Path) -> None:
    for name in imports(path):
        assert not name.startswith(("ray", "rich", "typer", "pydantic")), name
    for name in imports(path, lazy=False):
        assert not name.startswith("torch"), name


@pytest.mark.parametrize("path", [*modules("orchestrator/compare"), *modules("orchestrator/doctor")], ids=str)
def test_compare_and_doctor_need_no_torch(path: Path) -> None:
    for name in imports(path):
        assert not name.startswith("torch"), name
        if path.stem.endswith(("checks", "findings")):
            assert name.split(".")[0] not in ("os", "pathlib", "socket", "subprocess", "psutil"), name


def test_ray_appears_only_where_processes_are_placed() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in modules("orchestrator")
        if any(name.split(".")[0] == "ray" for name in imports(path))
    }
    folders = ("cluster", "launch", "submit", "live", "compare/actors", "transfer")
    allowed = tuple(f"orchestrator/{folder}/" for folder in folders)
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


def test_dumps_are_reached_through_their_registry() -> None:
    ways_in = {"aclcmp.orchestrator.dumps.registry", "aclcmp.orchestrator.dumps.atb.find_dumps"}
    ways_in |= {"aclcmp.orchestrator.dumps.safetensors"}  # checkpoints and cases are of this format too
    for path in modules("orchestrator"):
        if "dumps" not in path.relative_to(ROOT).parts:
            used = {name for name in imports(path) if name.startswith("aclcmp.orchestrator.dumps")}
            assert used <= ways_in, f"{path}: {used - ways_in}"


def test_exported_names_are_frozen() -> None:
    import aclcmp

    names = [
        "Comparison",
        "Partial",
        "Recording",
        "Replicate",
        "Shard",
        "assert_matches",
        "compare",
        "gen_id",
        "perturb",
    ]
    names += ["record", "rows", "set_label", "set_task_id", "watch"]
    assert names == aclcmp.__all__
    assert all(hasattr(aclcmp, name) for name in aclcmp.__all__)


@pytest.mark.parametrize(
    "path",
    sorted(p for top in ROOT.glob("[!.]*") for p in ([top] if top.suffix == ".md" else top.rglob("*.md"))),
    ids=str,
)
def test_links_in_documents_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_architecture_names_every_folder() -> None:
    packages = {path.parent for folder in ("labeling", "orchestrator") for path in (ROOT / folder).rglob("__init__.py")}
    folders = {f"{path.relative_to(ROOT)}/" for path in packages} - {"orchestrator/"}
    folders |= {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name in KEPT}
    rows = re.findall(r"^\| `([^`]+/)` \| [^|]*\w", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(folders)


def test_no_pickle_no_eval_no_shell() -> None:
    for folder in ("labeling", "orchestrator"):
        for path in modules(folder):
            assert "pickle" not in set(imports(path)), path
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func)
                    assert name not in ("eval", "exec", "os.system", "os.popen"), f"{path}: {name}"
                    shell = [k for k in node.keywords if k.arg == "shell"]
                    assert not shell, f"{path}: shell="
