"""What is hidden of command lines and variables, and what is not."""

import json
import secrets
import string
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.redaction import HIDDEN, is_secret, redact, redact_words
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record
from tests.recorded import record_run


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@proxy:3128", "http://(hidden)@proxy:3128"),
        ("http://pw@proxy:3128,https://me:x@y/z", "http://(hidden)@proxy:3128,https://(hidden)@y/z"),
        ("me:pw@proxy:3128", "(hidden)@proxy:3128"),
        ("https://store/x?X-Amz-Signature=0a1b&size=7", "https://store/x?X-Amz-Signature=(hidden)&size=7"),
        ("python x.py --key sk-1 --layers 2", "python x.py --key (hidden) --layers 2"),
        ("HF_TOKEN='a b' python x.py --api-key=xx", "HF_TOKEN=(hidden) python x.py --api-key=(hidden)"),
        ("curl -H 'Authorization: Bearer abc.def' x", "curl -H 'Authorization: Bearer (hidden)' x"),
        ("--password 1234", "--password (hidden)"),
        ("sk-proj-abcdefghijkl12345 and hf_abcdefghijklmnop", "(hidden) and (hidden)"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc", "(hidden)"),
        ("wandb login 3f9a0c1d7b2e4a6f8091c3d5e7f9a1b3c5d7e9f0", "wandb login (hidden)"),
        ("", ""),
    ],
)
def test_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown
    assert is_secret("NCCL_PROXY", text) is (text != shown)


@pytest.mark.parametrize(
    "text",
    [
        "python run.py --tokenizer /models/x --max-tokens 128 --num-key-value-heads 8 --pad-token 0 --seed=7",
        "/models/models--x/snapshots/0123456789abcdef0123456789abcdef01234567/config.json",
        "GPU-8f2c1d3e-1111-2222-3333-abcdef012345,MIG-GPU-8f2c1d3e-1111-2222-3333-abcdef012345/1/0",
        "deepseek-ai/DeepSeek-V2-Lite-Chat-0628 DeepSeekV2Lite16BChatInstruct",
        "Llama-3-8B-Instruct-v0-1-q4-k-m-gguf-00001-of-00002",
        "layers_12_mlp_down_proj_weight_0001 rank00001-2026-11-29-02-05-47-000000",
        "expandable_segments:True,garbage_collection_threshold:0.6",
        "10.0.0.1:29500 git@host.org:group/project.git s3://bucket/key",
        "/usr/local/cuda-12.4/lib64:/opt/venv/lib/python3.11/site-packages",
        "目录 monkey=1 authors=2 tokenize",
    ],
)
def test_shown(text: str) -> None:
    assert redact(text) == text and not is_secret("NCCL_DEBUG", text)


@pytest.mark.parametrize("make", [lambda: secrets.token_hex(24), lambda: "".join(
    secrets.choice(string.ascii_letters + string.digits) for _ in range(48))])  # fmt: skip
def test_most_values_at_random_are_hidden(make: object) -> None:
    assert callable(make)
    assert sum(redact(make()) == HIDDEN for _ in range(200)) > 160


def test_words_of_a_command() -> None:
    words = ["python", "x.py", "--key", "sk-1", "--tokenizer", "/m", "--pad-token", "0", "--passphrase", "0", "--auth"]
    assert redact_words(words) == (
        "python", "x.py", "--key", HIDDEN, "--tokenizer", "/m", "--pad-token", "0", "--passphrase", HIDDEN, "--auth",
    )  # fmt: skip
    assert redact_words(["bash", "-c", "A_KEY=b run --token c"]) == (
        "bash",
        "-c",
        "A_KEY=(hidden) run --token (hidden)",
    )
    assert redact_words(["--token", "--verbose", "x"]) == ("--token", "--verbose", "x")


def test_an_older_record_is_hidden_when_it_is_read(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    record_run(run, "x.py", 1)
    path = run.record
    content = json.loads(path.read_text())
    content |= {"command": ["python", "--key", "sk-1"], "environment": {"NCCL_PROXY": "http://me:pw@proxy"}}
    path.write_text(json.dumps(content))
    record = load_record(path)
    assert record.command == ("python", "--key", HIDDEN)
    assert record.environment == {"NCCL_PROXY": "http://(hidden)@proxy"}
