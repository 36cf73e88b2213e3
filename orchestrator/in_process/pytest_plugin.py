"""Plug-in of pytest: the fixture `aclcmp_run`. Every pytest loads it, so the rest is imported by the first test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aclcmp.orchestrator.in_process.recording import Recording

_RUN = pytest.StashKey["Recording"]()


@pytest.fixture
def aclcmp_run(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """Record the labels of a test. It fails unless they match, except where it calls `aclcmp_run.compare()` itself."""
    from aclcmp.orchestrator.in_process.recording import record

    run = record()
    with run:
        request.node.stash[_RUN] = run
        yield run
    run.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Compare the labels of a test that went well so far."""
    run = item.stash.get(_RUN, None)
    if run is None or run.compared or run.is_launched:
        return
    run.stop()
    found = run.compare()
    if not found:
        pytest.fail(f"the labels of the test do not match: {found.verdict}\n{found}", pytrace=False)
