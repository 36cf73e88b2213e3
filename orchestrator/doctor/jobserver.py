"""Whether Ray's job server answers at an address, by plain http and past any proxy: Ray's client may not be here."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

_SECONDS = 5.0


def why_no_job_server(address: str, token: str) -> str:
    """Ask `http[s]://HOST:PORT` for its version; return why that failed in a few words, "" if it answered."""
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", f"{parts.path.rstrip('/')}/api/version", headers=headers)
        answer = connection.getresponse()
        found = json.loads(answer.read(1 << 16) or "{}") if answer.status == 200 else {}
    except OSError as error:
        return error.strerror or str(error) or "no answer"
    except (http.client.HTTPException, ValueError):
        return "what answers there is no Ray"
    finally:
        connection.close()
    if answer.status in (401, 403):
        return "it refuses this token" if token else "it asks for a token"
    return "" if "ray_version" in found else f"what answers there is no Ray (http {answer.status})"
