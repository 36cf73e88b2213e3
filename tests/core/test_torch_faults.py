"""Why torch does not load, from lines as the real torch, torch_npu 2.13 and the dynamic loader print them."""

from __future__ import annotations

import pytest

from aclcmp.orchestrator.core.torch_faults import FRESH, ErrorTrail, LoadFault

START = "Traceback (most recent call last):"
OWN = '  File "/home/me/run.py", line 3, in <module>'
TORCH = '  File "/site-packages/torch/__init__.py", line 445, in <module>'
NPU = '  File "/site-packages/torch_npu/npu/utils.py", line 8, in <module>'
CTYPES = '  File "/usr/lib/python3.11/ctypes/__init__.py", line 376, in __init__'
OPS = '  File "/site-packages/torch/_ops.py", line 1392, in load_library'
GONE = "cannot open shared object file: No such file or directory"
LED_TO = ("", "The above exception was the direct cause of the following exception:", "")
AUTOLOAD = (
    "RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension auto-loading with "
    "TORCH_DEVICE_BACKEND_AUTOLOAD=0."
)
LIB = "/site-packages/torch_npu/lib/libtorch_npu.so"


def fault(*lines: str) -> LoadFault | None:
    trail = ErrorTrail()
    for line in lines:
        trail.hear(line)
    return trail.fault()


def by_itself(error: str) -> tuple[str, ...]:
    """What is printed when torch loads torch_npu by itself, and that fails."""
    return START, TORCH, NPU, "    import torch_npu._C", error, *LED_TO, START, OWN, TORCH, AUTOLOAD


@pytest.mark.parametrize(
    ("lines", "what", "fix"),
    [
        (
            (START, OWN, NPU, f"ImportError: libhccl.so: {GONE}"),
            "torch_npu does not find CANN's libhccl.so",
            "set_env.sh",
        ),
        (
            (START, NPU, f"ImportError: libge_new.so: {GONE}"),
            "torch_npu does not find CANN's libge_new.so",
            "set_env.sh",
        ),
        ((START, OWN, CTYPES, f"OSError: libascendcl.so: {GONE}"), "CANN's libascendcl.so is not found", "set_env.sh"),
        (
            (START, NPU, f"ImportError: libascend_hal.so: {GONE}"),
            "torch_npu does not find the NPU driver's libascend_hal.so",
            "/usr/local/Ascend/driver",
        ),
        (
            (START, OWN, CTYPES, f"OSError: libatb.so: {GONE}"),
            "libatb.so of CANN's NNAL is not found",
            "nnal/atb/set_env.sh",
        ),
        (
            (START, NPU, f"ImportError: {LIB}: undefined symbol: _ZN5torch8autograd10deleteNodeEPNS0_4NodeE"),
            "torch_npu was built for another torch",
            "torch-npu==X.Y.Z",
        ),
        (
            (START, NPU, "ImportError: cannot import name 'Tracer' from 'torch.fx._old' (/x/torch/fx/_old.py)"),
            "torch_npu was built for another torch",
            "torch-npu==X.Y.Z",
        ),
        (
            (START, NPU, f"ImportError: {LIB}: undefined symbol: aclrtGetDeviceCount"),
            "torch_npu was built for another CANN or NNAL: libtorch_npu.so needs aclrtGetDeviceCount",
            "COMPATIBILITY.md",
        ),
        (
            (START, TORCH, f"ImportError: libgomp.so.1: {GONE}"),
            "torch does not find libgomp.so.1 of the system",
            "libgomp1 (apt)",
        ),
        (
            (START, TORCH, CTYPES, f"OSError: libstdc++.so.6: {GONE}"),
            "torch does not find libstdc++.so.6 of the system",
            "libstdc++6 (apt)",
        ),
        (
            (START, TORCH, f"ImportError: libgomp-a34b3233.so.1: {GONE}"),
            "torch does not find its own libgomp-a34b3233.so.1",
            "--force-reinstall --no-deps torch",
        ),
        (
            (START, TORCH, f"ImportError: libcudnn.so.9: {GONE}"),
            "torch is built for CUDA, and does not find libcudnn.so.9",
            "its build for the CPU",
        ),
        (
            (START, TORCH, f"ImportError: libtorch_cpu.so: {GONE}"),
            "libtorch_cpu.so of torch or torch-npu is not found: not installed whole, or for another version or build",
            "versions that belong together",
        ),
        (
            (
                START,
                TORCH,
                "ImportError: /lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.99' not found (required by "
                "/site-packages/torch/lib/libc10.so)",
            ),
            "the system has no GLIBCXX_3.4.99, which is needed to load torch or another library",
            "libstdcxx-ng",
        ),
        (
            (START, TORCH, "ImportError: /lib64/libm.so.6: version `GLIBC_2.29' not found (required by libc10.so)"),
            "the system has no GLIBC_2.29, which is needed to load torch or another library",
            "a newer system",
        ),
        (
            (START, OWN, "ImportError: /opt/x/libgomp.so.1: cannot allocate memory in static TLS block"),
            "libgomp.so.1 was loaded too late (static TLS)",
            "LD_PRELOAD=/opt/x/libgomp.so.1",
        ),
        (
            (START, TORCH, "ImportError: /site-packages/torch/lib/libc10.so: undefined symbol: _ZN3c105ErrorX1E"),
            "torch's libc10.so was loaded with libraries of another version: it needs _ZN3c105ErrorX1E",
            "LD_LIBRARY_PATH",
        ),
        (
            (START, OWN, "ImportError: /x/flash_attn.so: undefined symbol: _ZNK3c1010TensorImpl4sizeE"),
            "flash_attn.so was built for another torch: it needs _ZNK3c1010TensorImpl4sizeE",
            "for this torch",
        ),
        (
            (START, TORCH, "ModuleNotFoundError: No module named 'typing_extensions'"),
            "torch needs the Python package typing_extensions",
            "--no-deps?",
        ),
        (
            (START, TORCH, "ImportError: Failed to load PyTorch C extensions:"),
            "torch is not installed whole, or another folder of that name comes first",
            "--force-reinstall",
        ),
        (
            (START, OWN, "RuntimeError: Numpy is not available"),
            "a package that is loaded, often torch, was built for another numpy",
            "numpy<2",
        ),
        (
            (
                START,
                OWN,
                "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, "
                "got 88 from PyObject",
            ),
            "a package that is loaded, often torch, was built for another numpy",
            "numpy<2",
        ),
        (
            (START, NPU, "RuntimeError: Two accelerators cannot be used at the same time in PyTorch: npu and cuda."),
            "torch_npu is installed beside a torch for another accelerator",
            "TORCH_DEVICE_BACKEND_AUTOLOAD=0",
        ),
    ],
)
def test_what_is_wrong(lines: tuple[str, ...], what: str, fix: str) -> None:
    found = fault(*lines)
    assert found is not None and found.what == what
    assert fix in found.fix and "--device cpu" not in found.fix
    assert "\n" not in found.what + found.fix
    assert fault(*(f"[rank3]: {line}" for line in lines)) == found  # as torch prints it of ranks


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (f"ImportError: libhccl.so: {GONE}", "does not find CANN's libhccl.so"),
        (f"ImportError: libascend_hal.so: {GONE}", "does not find the NPU driver's libascend_hal.so"),
        (f"ImportError: {LIB}: undefined symbol: _ZN2at4_ops3absE", "was built for another torch"),
        ("SyntaxError: invalid syntax", "cannot be loaded"),
    ],
)
def test_a_backend_that_torch_loads_by_itself_has_a_way_around(error: str, what: str) -> None:
    found = fault(*by_itself(error))
    assert found is not None and found.what == f"torch_npu, which torch loads by itself, {what}"
    assert found.fix.endswith("; or run with --device cpu, without it")


def test_a_backend_that_is_registered_and_not_there() -> None:
    gone = fault(*by_itself("ModuleNotFoundError: No module named 'torch_npu'"))
    assert gone is not None and gone.what == "torch_npu is registered with torch, and there is no such package"
    torn = fault(*by_itself("AttributeError: module 'torch_npu' has no attribute '_autoload'"))
    assert torn is not None and torn.what.startswith("torch_npu is not installed whole")
    other = fault(START, TORCH, AUTOLOAD.replace("torch_npu", "torch_spyre"))
    assert other is not None and other.what == "torch_spyre, which torch loads by itself, cannot be loaded"


def test_the_cause_is_found_however_deep_the_script_imports_torch() -> None:
    first = by_itself(f"ImportError: libhccl.so: {GONE}")
    deep = [f'  File "/home/me/part{each}.py", line 1, in <module>' for each in range(300)]
    found = fault(*first[:-3], *deep, *first[-3:])
    assert found is not None and "libhccl.so" in found.what


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (START, OWN, "ValueError: libhccl.so"),
        (START, OWN, CTYPES, f"OSError: libmine.so: {GONE}"),
        (START, OPS, CTYPES, f"OSError: /home/me/libmine.so: {GONE}"),
        (START, OWN, "ModuleNotFoundError: No module named 'mine'"),
        (START, OWN, "AttributeError: module 'torch' has no attribute 'npu'"),
        (START, OWN, "FileNotFoundError: version '3' not found"),
        (START, OWN, "ImportError: /x/mine.so: undefined symbol: my_function"),
        # caught, printed, and gone on: the script died of something else
        (START, NPU, f"ImportError: libhccl.so: {GONE}", "going on without", START, OWN, "ValueError: bad"),
        (f"WARNING: no NPU: libhccl.so: {GONE}", *["step"] * (FRESH + 1)),
        (f"WARNING: no NPU: libhccl.so: {GONE}", START, OWN, "KeyError: 'x'"),
    ],
)
def test_other_ends_get_no_such_words(lines: tuple[str, ...]) -> None:
    assert fault(*lines) is None


def test_no_line_steers_a_terminal_or_stops_the_run() -> None:
    for evil in ("a.so" * 5000, 'File "' * 5000, "undefined symbol" + "x" * 100_000, ".so: " * 5000, "_Z" * 9000):
        lines = [f"{evil} {GONE}", f"{GONE}{evil}", f"{evil}: undefined symbol: {evil}", f"No module named '{evil}'"]
        fault(START, TORCH, *lines * 20)  # ends: what is cubic in a line would take hours
    found = fault(START, TORCH, f"ImportError: lib\x1b]0;x\x07.so: {GONE}")
    assert found is not None and found.what.isprintable()
