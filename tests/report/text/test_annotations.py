"""Annotations: what GitHub reads is well-formed, points at the checkout, and stays within its limits."""

import re
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.report.text.annotations import annotations
from tests.report.made_up import decoder_labels, label, record_of, report_of, side, verdict
from tests.report.test_any_name import NAMES, NASTY

GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/checkouts/model/model"}
COMMAND = re.compile(r"::(error|warning) ((?:\w+=[^,:\r\n]*,?)*)::([^\r\n]*)")


def read(line: str) -> tuple[str, dict[str, str], str]:
    """Kind, properties and message of a workflow command, as GitHub's runner reads them."""
    found = COMMAND.fullmatch(line)
    assert found, line

    def unescaped(text: str) -> str:
        for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            text = text.replace(code, character)
        return text

    properties = dict(pair.split("=", 1) for pair in found[2].split(","))
    return found[1], {name: unescaped(value) for name, value in properties.items()}, unescaped(found[3])


def at(call_site: str, status: Status = Status.DIVERGED) -> LabelVerdict:
    origin = Origin.OWN if status is Status.DIVERGED else None
    return label("x", [replace(verdict(0, status, origin), actual=replace(side("acl"), call_site=call_site))])


@pytest.mark.parametrize("environ", [{}, {"GITHUB_ACTIONS": "false"}, {"CI": "true"}])
def test_none_elsewhere(environ: dict[str, str]) -> None:
    assert annotations(report_of([at("a.py:1")]), environ) == []


def test_an_error_where_it_goes_wrong_and_none_for_what_inherits() -> None:
    report = report_of(decoder_labels(3, 4, ("layers.1.attn.k", 2)), run=record_of(4))
    assert annotations(report, GITHUB) == [
        "::error file=modeling.py,line=212,title=layers.1.attn.k%3A diverged::task 0, rank 2: made up as diverged"
    ]


@pytest.mark.parametrize(
    ("call_site", "file", "line"),
    [
        ("/checkouts/model/model/src/a.py:7", "src/a.py", "7"),
        ("/checkouts/model/model/../model/a.py:7", "a.py", "7"),
        ("/checkouts/model/model2/a.py:7", "/checkouts/model/model2/a.py", "7"),
        ("/usr/lib/python3/torch/nn.py:7", "/usr/lib/python3/torch/nn.py", "7"),
        ("lib/a.py:7", "scripts/lib/a.py", "7"),
        ("/checkouts/model/model/od,d 100%:x.py:7", "od,d 100%:x.py", "7"),
        ("torch.nn.Linear", "scripts/torch.nn.Linear", None),
        ("", None, None),
    ],
)
def test_files_are_told_from_the_checkout_on(call_site: str, file: str | None, line: str | None) -> None:
    run = record_of(1).model_copy(update={"cwd": "/checkouts/model/model/scripts"})
    (command,) = annotations(report_of([at(call_site)], run=run), GITHUB)
    kind, properties, _ = read(command)
    assert kind == "error"
    assert (properties.get("file"), properties.get("line")) == (file, line)


def test_without_a_workspace_files_stay_as_they_are() -> None:
    (command,) = annotations(report_of([at("/somewhere/a.py:7")]), {"GITHUB_ACTIONS": "true"})
    assert read(command)[1]["file"] == "/somewhere/a.py"


def test_warnings() -> None:
    labels = [
        label("a", [verdict(0)]),
        label("b", [verdict(0, Status.DRIFT), verdict(3, Status.DRIFT)]),
        label("c", [verdict(0, Status.DRIFT)], occurrence=1),
        label("d", [verdict(0), verdict(1, Status.MISSING)]),
        label("e", [verdict(0, Status.MISMATCH)]),
    ]
    found = [read(command) for command in annotations(report_of(labels), GITHUB)]
    assert [(kind, properties["title"]) for kind, properties, _ in found] == [
        ("warning", "b: drift"),
        ("warning", "d: missing"),
        ("warning", "e: mismatch"),
    ]
    assert found[0][2] == "task 0, ranks 0, 3: made up as drift\n1 other label above the noise floor"


def test_at_most_ten_of_each() -> None:
    wrong = [label(f"w{i}", [verdict(0, Status.DIVERGED, Origin.OWN)]) for i in range(12)]
    absent = [label(f"m{i}", [verdict(0, Status.MISSING)]) for i in range(12)]
    drift = label("d", [verdict(0, Status.DRIFT)])
    found = [read(command) for command in annotations(report_of([*wrong, *absent, drift]), GITHUB)]
    assert [kind for kind, _, _ in found] == ["error"] * 10 + ["warning"] * 10
    assert found[10][1]["title"] == "d: drift"


def test_what_is_excused_is_not_told() -> None:
    excused = [replace(verdict(0, status), excused="ignored") for status in Status]
    assert annotations(report_of([label("x", excused)]), GITHUB) == []


@given(NAMES, st.text(max_size=40))
@example(NASTY, "::error::x\r\n::stop-commands::y")
@settings(max_examples=40)
def test_any_name(names: list[str], reason: str) -> None:
    ranks = [replace(verdict(0, Status.DIVERGED, Origin.OWN), reason=reason)]
    labels = [label(name, [replace(ranks[0], actual=replace(side("acl"), call_site=name))]) for name in names]
    commands = annotations(report_of(labels), GITHUB)
    assert len(commands) == min(len(names), 10)
    for command in commands:
        assert read(command)[0] == "error"
        command.encode("utf-8")
        assert visible(command) == command
