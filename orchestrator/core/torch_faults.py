"""Why torch or torch_npu cannot be loaded: lines that a process printed in, what is wrong and its mend out. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aclcmp.orchestrator.core.text import visible

SET_ENV = "CANN's set_env.sh (usually /usr/local/Ascend/ascend-toolkit/set_env.sh)"
FRESH = 15
"""A process that goes on for more lines after an error did not die of it."""
_KEPT, _WIDTH = 8, 600

_TRACEBACK = "Traceback (most recent call last)"
_CHAIN = ("was the direct cause of the following exception", "During handling of the above exception")
_FRAME = re.compile(r'File "([^"]+)", line \d+')
_PASSED_ON = re.compile(r"<frozen|/importlib/|/ctypes/|/torch/_ops\.py$")
"""Frames that load what another one asked for."""

_NOT_FOUND = re.compile(r"([\w.+@/~-]+): cannot open shared object file")
_SYMBOL = re.compile(r"([\w.+@/~-]+): undefined symbol: (\w+)")
_TOO_OLD = re.compile(r"version [`'](GLIBC(?:XX)?_[\d.]+|CXXABI_[\d.]+)' not found")
_TOO_LATE = re.compile(r"([\w.+@/~-]+): cannot allocate memory in static TLS block")
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_NO_NAME = re.compile(r"cannot import name '\w+' from '(torch[\w.]*)'|module '(torch[\w.]*)' has no attribute")
_NUMPY = re.compile(
    r"Numpy is not available|numpy\.dtype size changed|(?:numpy\S*multiarray) failed to import"
    r"|_ARRAY_API not found|compiled using NumPy 1\.x cannot be run"
)
_TORN = re.compile(r"Failed to load PyTorch C extensions")
_BACKEND = re.compile(r"Failed to load the backend extension: (\w+)")
_TWO = re.compile(r"Two accelerators cannot be used at the same time in PyTorch")
_TELLING = (
    "cannot open shared object",
    "undefined symbol",
    "' not found",
    "static TLS block",
    "No module named",
    "cannot import name",
    "has no attribute",
    "Num",
    "numpy",
    "_ARRAY_API",
    "backend extension",
    "PyTorch C extensions",
    "Two accelerators",
)
"""Cheap, for every line: what the patterns are tried on in the end."""

_DRIVER = re.compile(r"lib(ascend_hal|drvdsmi_host|dcmi|devmmap)\.so")
_CANN = re.compile(r"lib(hccl|ascendcl|acl_\w+|ge_runner|opapi\w*|nnopbase|msprofiler|runtime)\.so")
_NNAL = re.compile(r"lib(atb|asdops|tbe_adapter|mki|lcal)\.so")
_TORCH = re.compile(r"lib(c10\w*|torch\w*|shm|npu_profiler|op_plugin_atb)\.so")
_CUDA = re.compile(r"lib(cu[a-z]+\w*|nccl|nvrtc|nvToolsExt|nvJitLink|nvshmem\w*)\.so")
_BUNDLED = re.compile(r"-[0-9a-f]{8}[.-]")
_OF_TORCH = re.compile(r"_Z[A-Z]*(3c10|2at|5torch)")
_PACKAGES = {"libgomp": "libgomp1 (apt) or libgomp (yum)", "libstdc++": "libstdc++6 (apt) or libstdc++ (yum)"}


@dataclass(frozen=True, slots=True)
class LoadFault:
    """A fault and how to mend it, one line each."""

    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class _Circumstances:
    """Under which circumstances a line was printed."""

    inside: str
    """The package that loaded what failed: torch or torch_npu, "" any other."""
    backend: str
    """The package that torch was loading by itself, "" none."""
    set_env: str


class ErrorTrail:
    """Keeps, of lines as they come, what the last error and those that led to it tell; small however many lines."""

    def __init__(self) -> None:
        self._errors: deque[tuple[str, str]] = deque(maxlen=_KEPT)
        self._inside = ""
        self._chained = False
        self._age = 0

    def hear(self, line: str) -> None:
        """Take the next line that the process printed."""
        self._age += 1
        line = line[:_WIDTH]
        if _TRACEBACK in line:
            if not self._chained:
                self._errors.clear()
            self._chained, self._inside, self._age = False, "", 0
        elif _CHAIN[0] in line or _CHAIN[1] in line:
            self._chained, self._age = True, 0
        elif frame := _FRAME.search(line):
            self._age = 0
            if not _PASSED_ON.search(frame[1]):
                self._inside = next((name for name in ("torch_npu", "torch") if f"/{name}/" in frame[1]), "")
        elif any(word in line for word in _TELLING):
            self._errors.append((visible(line), self._inside))
            self._age = 0

    def fault(self, set_env: str = SET_ENV) -> LoadFault | None:
        """Say what the process died of; None where that is nothing of torch's loading. `set_env`: CANN's script."""
        if self._age > FRESH:
            return None
        backend = next((found[1] for text, _ in self._errors if (found := _BACKEND.search(text))), "")
        for text, inside in self._errors:
            if fault := _fault(text, _Circumstances(inside, backend, set_env)):
                return fault
        if not backend:
            return None
        case = _Circumstances("", backend, set_env)
        return LoadFault(
            f"{_package_words(backend, case)} cannot be loaded",
            f"see the first error printed{_or_without_it(case)}",
        )


def _fault(text: str, case: _Circumstances) -> LoadFault | None:
    for pattern, judge in _RULES:
        if found := pattern.search(text):
            return judge(found, case)
    return None


def _not_found(found: re.Match[str], case: _Circumstances) -> LoadFault | None:
    library = found[1].rpartition("/")[2]
    if _DRIVER.match(library):
        fix = (
            "install the NPU's driver, put /usr/local/Ascend/driver/lib64/driver and .../lib64/common on "
            "LD_LIBRARY_PATH, and mount /usr/local/Ascend/driver into a container"
        )
        return LoadFault(_misses(f"the NPU driver's {library}", case), fix + _or_without_it(case))
    if _NNAL.match(library):
        fix = "source the set_env.sh of NNAL, usually /usr/local/Ascend/nnal/atb/set_env.sh"
        return LoadFault(_misses(f"{library} of CANN's NNAL", case), fix + _or_without_it(case))
    if _TORCH.match(library):
        what = f"{library} of torch or torch-npu is not found: not installed whole, or for another version or build"
        return LoadFault(what, "install torch and what uses it anew, in versions that belong together")
    if not (case.inside or _CANN.match(library)):
        return None
    if _BUNDLED.search(library):
        return LoadFault(f"{case.inside} does not find its own {library}", _reinstall(case.inside))
    if case.inside and _CUDA.match(library):
        fix = f"{_reinstall('torch')}, or take its build for the CPU; libcuda.so.1 comes with the driver"
        return LoadFault(f"torch is built for CUDA, and does not find {library}", fix)
    name = library.partition(".so")[0]
    if name in _PACKAGES or case.inside == "torch":
        fix = f"install {_PACKAGES.get(name, 'the package that has it')}, or put its folder on LD_LIBRARY_PATH"
        return LoadFault(f"{case.inside} does not find {library} of the system", fix)
    return LoadFault(_misses(f"CANN's {library}", case), f"source {case.set_env}{_or_without_it(case)}")


def _symbol(found: re.Match[str], case: _Circumstances) -> LoadFault | None:
    path, symbol = found[1], found[2]
    library = path.rpartition("/")[2]
    if "torch_npu" in path or _NNAL.match(library):
        if _OF_TORCH.match(symbol):
            return _other_torch(case)
        what = f"{_package_words('torch_npu', case)} was built for another CANN or NNAL: {library} needs {symbol}"
        fix = (
            "install the CANN that it was released for (COMPATIBILITY.md of Ascend/pytorch), and source its set_env.sh"
        )
        return LoadFault(what, fix + _or_without_it(case))
    if "/torch/" in path or _TORCH.match(library):
        what = f"torch's {library} was loaded with libraries of another version: it needs {symbol}"
        return LoadFault(what, f"take other versions of torch or CUDA off LD_LIBRARY_PATH, or {_reinstall('torch')}")
    if _OF_TORCH.match(symbol):
        return LoadFault(
            f"{library} was built for another torch: it needs {symbol}", "install or build it for this torch"
        )
    return None


def _too_old(found: re.Match[str], case: _Circumstances) -> LoadFault:
    fix = "take a newer system or image, or older versions of torch and torch-npu"
    if not found[1].startswith("GLIBC_"):
        fix = "conda install -c conda-forge libstdcxx-ng, or put a newer libstdc++.so.6 first on LD_LIBRARY_PATH"
    return LoadFault(f"the system has no {found[1]}, which is needed to load torch or another library", fix)


def _too_late(found: re.Match[str], case: _Circumstances) -> LoadFault:
    what = f"{found[1].rpartition('/')[2]} was loaded too late (static TLS)"
    return LoadFault(what, f"load it first: LD_PRELOAD={found[1]}, or import torch before all else")


def _no_module(found: re.Match[str], case: _Circumstances) -> LoadFault | None:
    package = found[1].partition(".")[0]
    if package == case.backend:
        what = f"{case.backend} is registered with torch, and there is no such package"
        return LoadFault(what, f"pip uninstall it, or install it anew{_or_without_it(case)}")
    if not case.inside:
        return None
    if package == case.inside:
        return _incomplete_package(package, case)
    what = f"{_package_words(case.inside, case)} needs the Python package {package}"
    return LoadFault(what, f"install it (was {case.inside} installed with --no-deps?)")


def _no_name(found: re.Match[str], case: _Circumstances) -> LoadFault | None:
    module = found[1] or found[2]
    if module == "torch_npu" and case.backend:
        return _incomplete_package("torch_npu", case)
    return _other_torch(case) if case.inside == "torch_npu" and not module.startswith("torch_npu") else None


def _incomplete_package(package: str, case: _Circumstances) -> LoadFault:
    around = _or_without_it(case) if package == case.backend else ""
    what = f"{package} is not installed whole, or another folder of that name comes first"
    return LoadFault(what, _reinstall(package) + around)


def _numpy(found: re.Match[str], case: _Circumstances) -> LoadFault:
    what = "a package that is loaded, often torch, was built for another numpy"
    return LoadFault(what, "pip install 'numpy<2', or newer versions of what needs numpy")


def _two_accelerators(found: re.Match[str], case: _Circumstances) -> LoadFault:
    fix = "install torch's build for the CPU to use NPUs; to use GPUs set TORCH_DEVICE_BACKEND_AUTOLOAD=0 (--env)"
    return LoadFault("torch_npu is installed beside a torch for another accelerator", fix)


_Judge = Callable[[re.Match[str], _Circumstances], LoadFault | None]
_RULES: tuple[tuple[re.Pattern[str], _Judge], ...] = (
    (_NOT_FOUND, _not_found),
    (_SYMBOL, _symbol),
    (_TOO_OLD, _too_old),
    (_TOO_LATE, _too_late),
    (_NO_MODULE, _no_module),
    (_NO_NAME, _no_name),
    (_NUMPY, _numpy),
    (_TWO, _two_accelerators),
    (_TORN, lambda _, case: _incomplete_package("torch", case)),
)


def _other_torch(case: _Circumstances) -> LoadFault:
    what = f"{_package_words('torch_npu', case)} was built for another torch"
    fix = "install torch and torch-npu of one version: pip install torch==X.Y.Z torch-npu==X.Y.Z"
    return LoadFault(what, fix + _or_without_it(case))


def _package_words(package: str, case: _Circumstances) -> str:
    return f"{package}, which torch loads by itself," if package == case.backend else package


def _misses(library: str, case: _Circumstances) -> str:
    if case.inside == "torch_npu" or case.backend:
        return f"{_package_words('torch_npu', case)} does not find {library}"
    return f"{library} is not found"


def _reinstall(package: str) -> str:
    return f"pip install --force-reinstall --no-deps {package.replace('_', '-')}"


def _or_without_it(case: _Circumstances) -> str:
    """The way around a backend that torch loads by itself."""
    return "; or run with --device cpu, without it" if case.backend else ""
