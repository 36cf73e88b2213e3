"""docs/README.md lists every page; changelog fragments have names from which CHANGELOG.md is built."""

import re
from pathlib import Path

import pytest

from tests.test_house import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_the_index_lists_every_page(page: Path) -> None:
    listed = re.findall(r"\]\(([^)#]+)\)", (DOCS / "README.md").read_text())
    assert page in {DOCS / "README.md", *((DOCS / target).resolve() for target in listed)}


def test_fragments_are_named_by_kind() -> None:
    for fragment in (ROOT / "changelog.d").iterdir():
        assert re.fullmatch(r"README\.md|\+[a-z0-9-]+\.(added|changed|fixed|removed)\.md", fragment.name), fragment
