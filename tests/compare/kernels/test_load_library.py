"""The kernels' library: the installed one if it is right, else one that is built once, whoever asks for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aclcmp.labeling.shard import kernel_library
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from tests.processes import PATIENCE

ROOT = Path(__file__).parents[3]
KERNELS = "aclcmp/orchestrator/compare/kernels"
LOAD = """
from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.compare.kernels.load_library import load_library
try:
    print(load_library(lambda: print("compiling", flush=True))._name)
except AclcmpError as error:
    print("refused:", error)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package that nothing was built for."""
    ignored = shutil.ignore_patterns("__pycache__", kernel_library.NAME)
    shutil.copytree(ROOT / "aclcmp", tmp_path / "copy/aclcmp", ignore=ignored)
    return tmp_path / "copy"


def start(copy: Path, cache: Path, **environ: str) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(copy), "XDG_CACHE_HOME": str(cache), **environ}
    return subprocess.Popen(
        [sys.executable, "-c", LOAD], cwd="/", env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def loaded(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and not err, err
    return out.splitlines()


def test_an_installed_library_is_loaded(copy: Path, tmp_path: Path) -> None:
    installed = copy / KERNELS / kernel_library.NAME
    shutil.copy(load_library()._name, installed)
    assert loaded(start(copy, tmp_path / "cache", PATH="")) == [str(installed)]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["another version", "no library"])
def test_what_is_not_built_from_these_sources_is_not_used(copy: Path, tmp_path: Path, damage: str) -> None:
    installed, cache = copy / KERNELS / kernel_library.NAME, tmp_path / "cache"
    shutil.copy(load_library()._name, installed)
    if damage == "another version":
        with (copy / KERNELS / "walk.h").open("a") as source:
            source.write("/* another version */\n")
    else:
        installed.write_bytes(b"no library")
    told, library = loaded(start(copy, cache))
    assert told == "compiling" and Path(library).is_relative_to(cache)
    assert loaded(start(copy, cache)) == [library], "it is built once"


def test_one_process_builds_while_others_wait(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    compiler = tmp_path / "bin/cc"
    compiler.write_text(f'#!/bin/sh\necho called >> {tmp_path}/calls\nexec {kernel_library.find_compiler()} "$@"\n')
    compiler.chmod(0o755)
    processes = [start(copy, tmp_path / "cache", CC=str(compiler)) for _ in range(3)]
    libraries = {loaded(process)[-1] for process in processes}
    assert len(libraries) == 1 and Path(libraries.pop()).is_relative_to(tmp_path / "cache")
    assert (tmp_path / "calls").read_text() == "called\n"


def test_without_a_compiler_one_line_says_what_to_do(copy: Path, tmp_path: Path) -> None:
    (line,) = [line for line in loaded(start(copy, tmp_path / "cache", PATH="", CC="")) if line != "compiling"]
    assert line.startswith("refused: host ") and "nor a C compiler" in line and "pip" in line


def test_a_compiler_that_fails_is_named_with_its_error(copy: Path, tmp_path: Path) -> None:
    with (copy / KERNELS / "kernels.c").open("a") as source:
        source.write("#error of this test\n")
    (line,) = [line for line in loaded(start(copy, tmp_path / "cache")) if line != "compiling"]
    assert "cannot build the comparison kernels" in line and "#error of this test" in line and "pip" in line


def test_no_cache_folder_is_no_error(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told, library = loaded(start(copy, tmp_path / "file"))
    assert told == "compiling" and not Path(library).exists()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_sources_compile_without_a_warning(tmp_path: Path, compiler: str) -> None:
    found = shutil.which(compiler)
    if found is None:
        pytest.skip(f"needs {compiler}")
    kernel_library.build_library(tmp_path / kernel_library.NAME, found, "-Wall", "-Wextra", "-Werror")
