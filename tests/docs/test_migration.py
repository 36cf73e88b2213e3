"""The pages for users of the original tool and of low-level labels say what the code does, in both languages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from aclcmp.labeling import capture
from aclcmp.labeling.shard.tensor_summary import MAX_ROWS, SKETCH_SIZE, packed_size
from aclcmp.orchestrator.cli.app import app
from aclcmp.orchestrator.compare.summaries import error_bar
from aclcmp.orchestrator.core.stats import Basis
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.dumps.atb.codes import DTYPE_NAMES
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.launch import dump_setup
from aclcmp.orchestrator.launch.dump_setup import DumpOrder, filters, prepare, switches
from aclcmp.orchestrator.report.as_csv import ORIGINAL
from tests.launch.test_probe import install

DOCS = Path(__file__).parents[2] / "docs"
ENGLISH, CHINESE, LOW_LEVEL = "from-ait.md", "from-ait.zh.md", "low-level.md"
PAGES = (ENGLISH, CHINESE, LOW_LEVEL)

ELSEWHERE = {"--golden-path", "--my-path"}
"""Options of the original that the pages say are not there."""


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """The language and the text of every code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def section(page: str, heading: str) -> str:
    """The text below a heading of the second level."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text_of(page), re.DOTALL | re.MULTILINE)
    return str(found)


def table(text: str) -> list[list[str]]:
    """The cells of all rows of the tables in a text, without heads."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    rules = [number for number, row in enumerate(rows) if set("".join(row)) <= {"-"} and any(row)]
    heads = {*rules, *(number - 1 for number in rules)}
    return [row for number, row in enumerate(rows) if number not in heads]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_snippets_compile(page: str) -> None:
    snippets = [code for language, code in blocks(page) if language == "python"]
    assert snippets
    for snippet in snippets:
        compile(snippet, page, "exec")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose(page)):
        name, _, anchor = link.partition("#")
        target = (DOCS / name).resolve()
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_options_exist(page: str) -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    commands = group.commands
    known = {
        name for command in (commands["run"], commands["compare"]) for each in command.params for name in each.opts
    }
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"\]\([^)]*\)", "]", text_of(page))))
    assert "--low-level" in used
    assert used - ELSEWHERE <= known
    assert not ELSEWHERE & known, "these are there now: tell so in the pages"


def test_the_languages_have_one_structure() -> None:
    def heads(page: str) -> list[int]:
        return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]

    def shape(page: str) -> list[int]:
        return [len(line.split("|")) for line in prose(page).splitlines() if line.startswith("|")]

    assert heads(ENGLISH) == heads(CHINESE)
    assert blocks(ENGLISH) == blocks(CHINESE)
    assert shape(ENGLISH) == shape(CHINESE)
    assert f"]({CHINESE})" in text_of(ENGLISH).splitlines()[2]
    assert f"]({ENGLISH})" in text_of(CHINESE).splitlines()[2]


def test_the_languages_name_the_same_things() -> None:
    def names(page: str) -> set[str]:
        found = set(re.findall(r"`([^`\n]+)`", prose(page)))
        return {name for name in found if name.isascii() and "<" not in name}

    assert names(ENGLISH) == names(CHINESE)


@pytest.mark.parametrize("page", [ENGLISH, CHINESE])
def test_columns_statuses_and_exit_codes(page: str) -> None:
    names = re.findall(r"`(\w+)`", prose(page))
    listed = "\n".join(names)
    assert "\n".join(ORIGINAL) in listed
    assert len(ORIGINAL) == 19 and "19" in prose(page)
    assert "\n".join(status.value for status in Status) in listed
    codes = [int(row[0]) for row in table(text_of(page)) if row[0].isdecimal()]
    assert codes == [code.value for code in ExitCode]


@pytest.fixture
def no_map_is_left() -> Iterator[None]:
    yield
    folder = dump_setup.MAPS / f"{os.getpid()}n0"
    (folder / dump_setup.MAP_NAME).unlink(missing_ok=True)
    folder.rmdir()


@pytest.mark.usefixtures("no_map_is_left")
def test_the_variables_are_those_that_are_set(tmp_path: Path) -> None:
    environ = install(tmp_path, probe=b'"exec_range"')
    folder = tmp_path / "dumps"
    setup = prepare(DumpOrder(folder, frozenset()), environ)
    rows = [row for row in table(section(LOW_LEVEL, "What --low-level sets"))]
    placeholders = {setup.probe: "PROBE", str(folder): "FOLDER", str(os.getpid()): "PID"}

    def shown(value: str) -> str:
        for real, placeholder in placeholders.items():
            value = value.replace(real, placeholder)
        return value

    assert {row[0].strip("`"): row[1].strip("`") for row in rows} == {
        name: shown(value) for name, value in setup.variables.items()
    }
    winners = {row[0].strip("`"): row[2] for row in rows}
    for name in switches(folder, "1"):
        assert winners[name] == "aclcmp over the shell"
    for name in filters(folder):
        assert winners[name] == "the shell"


@pytest.mark.usefixtures("no_map_is_left")
def test_who_wins_is_true(tmp_path: Path) -> None:
    rows = table(section(LOW_LEVEL, "What --low-level sets"))
    names = [row[0].strip("`") for row in rows if row[2] in ("aclcmp over the shell", "the shell")]
    shell = install(tmp_path, probe=b'"exec_range"') | dict.fromkeys(names, "shell's")
    setup = prepare(DumpOrder(tmp_path / "a", frozenset()), shell)
    for name, _, winner in rows:
        if name.strip("`") in names:
            assert (name.strip("`") in setup.variables) == winner.startswith("aclcmp"), name
    given = frozenset({*names, "LD_PRELOAD"} - {"AIT_CMP_TASK_PID"})
    setup = prepare(DumpOrder(tmp_path / "b", given), shell | {"LD_PRELOAD": "/mine.so"})
    assert set(setup.variables) & given == {"LD_PRELOAD"}
    assert setup.variables["LD_PRELOAD"].endswith(":/mine.so")


def test_the_dtypes_are_those_that_are_read() -> None:
    cells = {row[0]: row[1] for row in table(section(LOW_LEVEL, "What is read"))}

    def codes(text: str) -> set[str]:
        return set(re.findall(r"[A-Z][A-Z0-9_]+", text))

    assert codes(cells["dtypes read"]) == {name for name, dtype in DTYPE_NAMES.values() if dtype}
    assert codes(cells["not read"]) == {name for name, dtype in DTYPE_NAMES.values() if not dtype}


def test_the_figures_of_summaries() -> None:
    kept = section(LOW_LEVEL, "How much is kept")
    assert f"{SKETCH_SIZE:,} numbers" in kept
    assert f"at most {packed_size((MAX_ROWS, 1), sketch=True) / 1000:.0f} kB" in kept
    assert f"±{error_bar(Basis.FINGERPRINT) or 0.0:.0%}".replace("%", " %") in kept


def test_the_figures_of_the_disk() -> None:
    full = section(LOW_LEVEL, "When the disk fills")
    assert f"every {capture._LOOK_AGAIN >> 20} MiB" in full
    assert f"fewer than {capture._TIGHT_TASKS} more" in full
    assert f"{capture._MOST_RESERVE >> 30} GiB at most" in full
    assert f"less than {dump_setup.SCARCE >> 30} GiB" in full
