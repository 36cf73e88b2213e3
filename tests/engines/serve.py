"""A user's script around vLLM's server: start it, ask it two questions at once, stop it.

aclcmp --exec "python serve.py MODEL RANKS" --ranks 1 --no-compare
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from aclcmp.labeling.engines.vllm_run import SETTINGS

PATIENCE = 300


def ask(url: str, prompt: str) -> str:
    """Return how the server goes on."""
    question = json.dumps({"prompt": prompt, "max_tokens": 4, "temperature": 0}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", question, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["choices"][0]["text"]


def main(model: str, ranks: str) -> int:
    """Serve, ask and stop."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--dtype", "float32",
        "--tensor-parallel-size", ranks, "--enforce-eager", "--max-model-len", "128", "--host", "127.0.0.1",
        "--port", str(port),
    ]  # fmt: skip
    server = subprocess.Popen(command, env=os.environ | SETTINGS | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"})
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while server.poll() is None and time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        with ThreadPoolExecutor(2) as pool:
            for text in pool.map(
                lambda prompt: ask(url, prompt), ["The quick brown fox", "Once upon a time there was"]
            ):
                print("answered", repr(text), flush=True)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(PATIENCE)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
