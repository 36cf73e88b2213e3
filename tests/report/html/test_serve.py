"""The page that is served: rows and labels come when they are asked for, and to this host alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, expect

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.report.html.serve import HOST, ServedPage, open_server
from tests.processes import PATIENCE
from tests.report.html.pages import NASTY, decoder_report, nasty_report
from tests.report.made_up import label, layer_names, report_of, verdict


@contextmanager
def served(report: Report, folder: Path) -> Iterator[int]:
    """Serve a report out of its report.h5; give the port."""
    path = folder / "report.h5"
    write_h5(report, path)
    with open_server(ServedPage(read_h5(path, report.run)), 0) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with served(decoder_report(), tmp_path_factory.mktemp("served")) as port:
        yield port


def get(port: int, target: str, **headers: str) -> tuple[HTTPResponse, bytes]:
    connection = HTTPConnection(HOST, port, timeout=PATIENCE)
    connection.request("GET", target, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def rows(port: int, **query: object) -> Any:
    _, body = get(port, f"/rows?{urlencode(query)}")
    return json.loads(body)


def test_rows_by_page(port: int) -> None:
    found = rows(port, order="status", descending="true", first=0, last=3)
    assert found["total"] == 219 and sum(found["counts"].values()) == 219
    assert [row[:2] for row in found["rows"]] == [[89, 5], [90, 1], [91, 1]]
    every = rows(port, columns="every", order="margin", descending="true", last=5)
    assert every["total"] == 219 * 16 and every["rows"][0][:2] == [89, 5] and every["rows"][0][3] == 165
    assert rows(port, columns="every", first=219 * 16 - 2, last=10**9)["rows"][-1][:2] == [218, 15]
    assert len(rows(port, columns="every", last=10**9)["rows"]) == 1000
    assert rows(port, columns=3, words="attn.core layers.12 FUSED")["total"] == 1
    looks = rows(port, columns="every", looks="gap missing")
    assert [row[:2] for row in looks["rows"]] == [[112, 3], [112, 4]] and looks["total"] == 2


def test_names_are_sorted_by_their_numbers(port: int) -> None:
    place = {row[0]: at for at, row in enumerate(rows(port, order="label", last=219)["rows"])}
    at = {name: place[number] for number, name in enumerate(layer_names(24))}
    assert at["layers.2.mlp.up"] < at["layers.10.attn.q"] < at["lm_head"]


def test_a_label_has_all_its_ranks(port: int) -> None:
    _, body = get(port, "/label?number=89")
    found = json.loads(body)
    assert [each["rank"] for each in found["verdicts"]] == list(range(16))
    assert {each["label"] for each in found["verdicts"]} == {89}
    assert found["verdicts"][5]["worst_row"]["row"] == [23] and found["datasets"] == {
        "89": "/tasks/0/layers.9.mlp.down.local/0"
    }


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nothing", 404),
        ("/label?number=219", 404),
        ("/label?number=-1", 404),
        ("/label?number=x", 400),
        ("/rows?first=x", 400),
        ("/../run.json", 404),
        ("/rows?" + "&".join("a=1" for _ in range(99)), 400),
    ],
)
def test_what_is_not_there(port: int, target: str, status: int) -> None:
    answer, body = get(port, target)
    assert answer.status == status and b"Traceback" not in body


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:9000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("localhost.evil.example", 403),
        ("[::1].evil.example", 403),
        ("", 403),
    ],
)
def test_names_of_other_sites_are_refused(port: int, host: str, status: int) -> None:
    """A site whose name leads to this host (DNS rebinding) gets nothing."""
    answer, _ = get(port, "/", Host=host)
    assert answer.status == status


def test_headers(port: int) -> None:
    answer, body = get(port, "/", **{"Accept-Encoding": "gzip"})
    page = gzip.decompress(body).decode()
    assert "connect-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert 'id="details-data"' not in page and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    answer, _ = get(port, "/label?number=0")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_port_that_is_taken(port: int) -> None:
    page = ServedPage(report_of([label("a", [verdict(0)])]))
    with pytest.raises(UsageError, match=f"port {port}: .*--port 0 takes any"):
        open_server(page, port)
    with pytest.raises(UsageError, match="port 70000"):
        open_server(page, 70000)


@pytest.mark.parametrize("made", [decoder_report, nasty_report])
@pytest.mark.browser
def test_in_a_browser(made: Callable[[], Report], browser: Browser, tmp_path: Path) -> None:
    report = made()
    with served(report, tmp_path) as port:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(f"http://{HOST}:{port}/")
        total = sum(len(one.ranks) for one in report.judgement.labels)
        page.locator("#rank").select_option(label="every rank")
        expect(page.locator("#found")).to_have_text(f"{total:,} rows")
        if total > 1000:
            page.locator("#rows").evaluate("rows => rows.scrollTop = rows.scrollHeight")
            expect(page.locator("#rows tbody tr").last).to_have_attribute("aria-rowindex", str(total + 1))
            page.locator("#query").fill("layers.9.mlp.down")
            expect(page.locator("#found")).to_have_text("16 rows")
        page.locator("#query").fill("")
        page.locator(".grid .first").click()
        expect(page.locator("dialog .sides")).to_be_attached()
        assert page.locator("img, iframe").count() == 0 and page.evaluate("document.title") != "owned"
        page.close()
        assert not [each for each in troubles if "favicon" not in each] and len(NASTY) == 11
