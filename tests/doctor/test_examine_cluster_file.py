"""A cluster file is checked, and so is the way to what it names. On a real cluster: tests/cli/test_preflight.py."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aclcmp.orchestrator.doctor.examine import why_no_job_server
from aclcmp.orchestrator.doctor.examine_cluster_file import examine_file
from aclcmp.orchestrator.doctor.findings import Severity
from aclcmp.orchestrator.errors import UsageError


def cluster_file(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Something that answers http, whatever it is asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def nobody() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b'{"version": "4", "ray_version": "2.60.0"}', ""),
        (200, b"<html>hello</html>", "no Ray"),
        (200, b'{"version": 1}', "no Ray (http 200)"),
        (404, b"", "no Ray (http 404)"),
        (401, b"", "it asks for a token"),
    ],
)
def test_what_answers_as_a_job_server(status: int, body: bytes, why: str) -> None:
    with answering(status, body) as address:
        found = why_no_job_server(address)
    assert why in found and bool(found) == bool(why)


def test_nothing_answers() -> None:
    assert "refused" in why_no_job_server(nobody())


def test_a_wrong_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"aclcmp\.rank is not known; did you mean ranks"):
        examine_file(cluster_file(tmp_path, "address: http://10.0.0.1:8265\naclcmp: {exec: ls, rank: 2}\n"))
    with pytest.raises(UsageError, match="not the URL of a job server"):
        examine_file(cluster_file(tmp_path, "address: 10.0.0.1:6379\naclcmp: {exec: ls}\n"))


def test_a_file_that_names_no_address(tmp_path: Path) -> None:
    manifest = "apiVersion: ray.io/v1\nkind: RayCluster\nspec: {}\naclcmp: {exec: ls, ranks: 2}\n"
    found = examine_file(cluster_file(tmp_path, manifest))
    right, apart = found.findings
    assert found.healthy and right.level is Severity.OK and "`ls` on 2 ranks" in right.what
    assert apart.level is Severity.WARN and "kubectl exec" in apart.fix


def test_an_address_where_nothing_answers(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    found = examine_file(cluster_file(tmp_path, f"address: {nobody()}\naclcmp: {{exec: ls}}\n"))
    assert not found.healthy
    assert "no job server answers" in found.findings[-1].what and "ssh -L" in found.findings[-1].fix
