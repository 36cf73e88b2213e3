"""Serve the page of a report on this host alone: its rows and labels are made when the page asks for them.

/                  the page
/part/NAME         gzip: "overview" (JSON) and "figures" (bytes), as a page that is a file holds them
/rows?...          JSON: the rows of the table from `first` to `last`, of the query that the other parameters say
/label?number=N    JSON: all that is known of a label
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.report.html.details import label_details
from aclcmp.orchestrator.report.html.grid import columns_of, figures
from aclcmp.orchestrator.report.html.overview import overview
from aclcmp.orchestrator.report.html.page import page_text
from aclcmp.orchestrator.report.html.served_rows import RowQuery, ServedRows

HOST = "127.0.0.1"
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
_JSON = "application/json"
_COMPRESSED_FROM = 1 << 14


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the server."""

    body: bytes
    kind: str
    policy: str = "default-src 'none'"
    """Content-Security-Policy."""


class ServedPage:
    """The page of a report, in parts."""

    def __init__(self, report: Report) -> None:
        """Make what the page shows first."""
        columns = columns_of(report)
        labels = report.judgement.labels
        text, policy = page_text(report, served=True)
        self._fixed = {
            "/": Answer(text.encode(), "text/html; charset=utf-8", policy),
            "/part/overview": _json(overview(report, columns)),
            "/part/figures": Answer(figures(labels, columns), "application/octet-stream"),
        }
        self._rows = ServedRows(labels, columns)
        self._report = report

    def answer(self, target: str) -> Answer | None:
        """Return the answer to a request; None where there is none. Raises ValueError for parameters that are none."""
        address = urlsplit(target)
        wanted = dict(parse_qsl(address.query, max_num_fields=16))
        if address.path == "/rows":
            first, last = int(wanted.get("first", "0")), int(wanted.get("last", "100"))
            return _json(self._rows.find(RowQuery.of(wanted), first, last))
        if address.path == "/label":
            return self._label(int(wanted.get("number", "-1")))
        return self._fixed.get(address.path)

    def _label(self, number: int) -> Answer | None:
        judgement = self._report.judgement
        if not 0 <= number < len(judgement.labels):
            return None
        alone = replace(judgement, labels=judgement.labels[number : number + 1])
        return _json(label_details(replace(self._report, judgement=alone), number))


def _json(value: object) -> Answer:
    return Answer(json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii"), _JSON)


def open_server(page: ServedPage, port: int) -> ThreadingHTTPServer:
    """Return a server of a page on the loopback address; port 0 takes any that is free.

    Raises UsageError when the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _handle(self, page)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the terminal has the address alone."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot serve on {HOST}, port {port}: {error}; --port 0 takes any that is free") from None


def _handle(request: BaseHTTPRequestHandler, page: ServedPage) -> None:
    if not _LOOPBACK.fullmatch(request.headers.get("Host", "")):  # another site's name that leads here: DNS rebinding
        return _refuse(request, HTTPStatus.FORBIDDEN, "this page is for this host alone")
    try:
        found = page.answer(request.path)
    except ValueError:
        return _refuse(request, HTTPStatus.BAD_REQUEST, "the parameters cannot be read")
    if found is None:
        return _refuse(request, HTTPStatus.NOT_FOUND, "there is no such thing")
    body = found.body
    request.send_response(HTTPStatus.OK)
    if len(body) >= _COMPRESSED_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, 1)
        request.send_header("Content-Encoding", "gzip")
    _send(request, body, found.kind, found.policy)
    return None


def _refuse(request: BaseHTTPRequestHandler, status: HTTPStatus, words: str) -> None:
    request.send_response(status)
    _send(request, words.encode(), "text/plain; charset=utf-8", "default-src 'none'")


def _send(request: BaseHTTPRequestHandler, body: bytes, kind: str, policy: str) -> None:
    headers = {
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        "Content-Security-Policy": policy,
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
    try:
        request.wfile.write(body)
    except ConnectionError:  # the page was closed meanwhile
        request.close_connection = True
