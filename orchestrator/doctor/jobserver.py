"""Whether Ray's job server answers at an address, by plain http and past any proxy: Ray's client may not be here."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

ASKS_FOR_TOKEN = "it asks for a token"
_SECONDS = 5.0


def why_no_job_server(address: str) -> str:
    """Ask `http[s]://HOST:PORT` for its version; return why that failed in a few words, "" if it answered.

    It is asked without a token, and ASKS_FOR_TOKEN is the answer of one that wants it.
    """
    parts = urlsplit(address)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/api/version")
        answer = connection.getresponse()
        found = json.loads(answer.read(1 << 16) or "{}") if answer.status == 200 else {}
    except OSError as error:
        return error.strerror or str(error) or "no answer"
    except (http.client.HTTPException, ValueError):
        return "what answers there is no Ray"
    finally:
        connection.close()
    if answer.status in (401, 403):
        return ASKS_FOR_TOKEN
    return "" if "ray_version" in found else f"what answers there is no Ray (http {answer.status})"
