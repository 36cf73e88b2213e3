"""The mode that Ray has read at its import is corrected before a token is needed."""

import os
import subprocess
import sys

import pytest

from tests.processes import PATIENCE

_SCRIPT = """
import socket
import ray.autoscaler._private.util  # as the check of a cluster-launcher file does
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled as headers
from aclcmp.orchestrator.errors import AclcmpError
from aclcmp.orchestrator.submit.client import JobClient

assert not headers({})
with socket.socket() as server:
    server.bind(("127.0.0.1", 0))
    server.listen()
    server.settimeout(20)
    import threading
    got = []

    def answer():
        for _ in range(2):  # first whether anything listens, then the request
            connection, _ = server.accept()
            connection.settimeout(20)
            got.append(connection.recv(65536).decode())
            connection.sendall(b"HTTP/1.1 401 Unauthorized\\r\\nContent-Length: 0\\r\\n\\r\\n")
            connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        JobClient.connect(f"http://127.0.0.1:{server.getsockname()[1]}")
    except AclcmpError as error:
        print(error)
    thread.join()
print("sent" if "authorization: bearer hushhush" in got[1].lower() else got)
"""


@pytest.mark.submit
def test_ray_was_imported_before_the_mode_was_known() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    environ["RAY_AUTH_TOKEN"] = "hushhush" * 8
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["sent"] and "wants a token" in done.stdout, done
