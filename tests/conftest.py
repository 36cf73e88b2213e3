"""Environment of every test: without the developer's ranks, devices and Ray, and without an accelerator."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("aclcmp", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("aclcmp")  # for all tests: how long an example takes says how busy the machine is

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, from which commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that give a command another home still load the kernels that were compiled for this one, in a clone that has
# changed since it was installed.
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))

_WIPED = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_",
    "MASTER_",
    "GROUP_RANK",
    "RAY_",
    "ASCEND_",
    "CUDA_",
    "ACLCMP_",
    "AIT_",
    "TORCH_DEVICE_",
    "OMPI_",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first: workers take whole files, and one that came last would run alone for minutes."""
    longest = ("submit", "netns", "model")
    items.sort(key=lambda item: next((i for i, mark in enumerate(longest) if item.get_closest_marker(mark)), 3))


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wipe what a launcher or a device toolkit sets; tell Ray not to write a token into the home folder."""
    for name in list(os.environ):
        if name.startswith(_WIPED):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture(params=["plain", "with blank", "quo'te\"s", "ünïcode-目录"])
def weird_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Make a folder whose name trips careless code."""
    folder = tmp_path / request.param
    folder.mkdir()
    yield folder
