"""What an examination looks like, for people and for programs."""

from __future__ import annotations

import io
import json

from rich.console import Console

from aclcmp.orchestrator.doctor.checks import check
from aclcmp.orchestrator.doctor.examine import Examination
from aclcmp.orchestrator.doctor.findings import Finding, HostReport, Severity
from aclcmp.orchestrator.doctor.show import as_json, from_json, print_examination
from tests.doctor.hosts import host_report, two_hosts


def printed(hosts: list[HostReport], encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=120, highlight=False, markup=False)
    print_examination(Examination("the cluster", tuple(check(hosts))), console)
    stream.seek(0)
    return stream.read()


def test_findings_by_host_each_with_its_fix() -> None:
    text = printed(two_hosts(facts__network__resolved=("127.0.1.1",), facts__devices__npus=7))
    lines = text.splitlines()
    assert lines[0] == "aclcmp doctor: the cluster" and lines[-1] == "1 is bad, 1 warning."
    headings = [line for line in lines[1:-1] if line and not line.startswith(" ")]
    assert headings == ["acl-a (10.0.0.1)", "acl-b (10.0.0.2)", "All hosts together"]
    cross = next(number for number, line in enumerate(lines) if line.startswith("  ✗ Ray offers 8 NPU"))
    assert lines[cross + 1].startswith("      fix: `ray start` without --resources")
    assert headings[1] in lines[:cross] and "\x1b" not in text
    assert sum(line.startswith("  ! ") for line in lines) == 1


def test_the_last_line_sums_up() -> None:
    assert printed([host_report()]).endswith(" checks are fine.\n")
    assert printed([host_report(facts__code="x"), *two_hosts(facts__code="x")[1:]]).endswith("are fine.\n")
    assert printed(two_hosts(facts__code="x")).endswith("Nothing is bad, 1 warning.\n")


def test_a_terminal_without_signs() -> None:
    text = printed(two_hosts(facts__devices__npus=7), "ascii")
    assert "  x Ray offers 8 NPU" in text and "  + Ray asks for a token" in text


def test_many_hosts_are_not_a_wall() -> None:
    text = printed([host_report(), *(host_report(f"acl-{n}", f"10.0.0.{n}") for n in range(2, 20))])
    assert len(text.splitlines()) < 70 and text.count(" checks are fine") == 20


def test_json_is_one_line_and_comes_back() -> None:
    facts = ({"where": "acl-a", "versions": {"aclcmp": "1"}},)
    whole = Examination("it", (Finding(Severity.BAD, "w", "acl-a", "f"), Finding(Severity.OK, "x")), facts)
    line = as_json(whole)
    assert "\n" not in line and json.loads(line)["healthy"] is False
    assert from_json(f"2026 INFO worker.py\n{line}\nbye {{}}\n") == whole
    for text in (
        "",
        "nothing",
        '{"schema": 1}',
        '{"schema": 2, "findings": []}',
        '{"schema": 1, "findings": [1]}',
        "[1]",
    ):
        assert from_json(text) is None, text
    assert from_json(line.replace('"bad"', '"awful"')) is None


def test_what_another_host_prints_does_not_steer_this_terminal() -> None:
    line = as_json(Examination("\x1b]0;it\x07", (Finding(Severity.BAD, "\x1b[2Jw", "a\r", "f"),)))
    found = from_json(line.replace('"f"', "7"))
    assert found is not None and found.findings[0].fix == "7"
    assert (found.subject + "".join(found.findings[0].what + found.findings[0].where)).isprintable()
    assert from_json("[" * 100_000) is None
