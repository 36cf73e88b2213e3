"""Where a job server may be, whether it is safe to speak to, and which token Ray will find."""

import socket
from pathlib import Path

import pytest

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.submit import address, client
from aclcmp.orchestrator.submit.token import TokenFrom, prepare_token, refusal


@pytest.mark.parametrize(
    "wrong", ["10.0.0.1:8265", "10.0.0.1", "ray://h:10001", "http://", "http://h:x", "http://h/a", ""]
)
def test_no_urls(wrong: str) -> None:
    with pytest.raises(UsageError, match="http://"):
        address.check_address(wrong)


@pytest.mark.parametrize("url", ["http://me:hush@h:8265", "http://me:hush@h:x", "http://me:hush@h/a", "me:hush@h"])
def test_no_password_in_a_url(url: str) -> None:
    with pytest.raises(UsageError, match="leave the user name and password out") as raised:
        address.check_address(url)
    assert "hush" not in str(raised.value)


def test_no_password_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hush@proxy:3128")
    monkeypatch.setenv("no_proxy", "h2")
    assert address.proxy_of("http://h:8265") == "proxy:3128" and address.proxy_of("http://h2:8265") == ""


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("http://h/a", "http://h:8265"),
        ("http://h:x", "http://h:8265"),
        ("ray://h:10001", "http://h:8265"),
        ("[fd00::1]:6379", "http://[fd00::1]:8265"),
        ("http://", "http://HEAD:8265"),
    ],
)
def test_the_hint_is_a_url(wrong: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        address.check_address(wrong)
    assert str(raised.value).endswith(f"such as {hint}")


def test_urls() -> None:
    assert address.check_address("http://h:8265/") == address.check_address("HTTP://h:8265") == "http://h:8265"
    assert address.check_address("https://[fd00::1]:8265") == "https://[fd00::1]:8265"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("http://8.8.8.8:8265", True),
        ("http://[2001:4860:4860::8888]:8265", True),
        ("https://8.8.8.8:8265", False),
        ("http://10.1.2.3:8265", False),
        ("http://172.20.0.1:8265", False),
        ("http://192.168.0.1:8265", False),
        ("http://127.0.0.1:8265", False),
        ("http://[::1]:8265", False),
        ("http://[fd00::1]:8265", False),
        ("http://169.254.1.1:8265", False),
        ("http://localhost:8265", False),
        ("http://no-such-host.invalid:8265", False),
    ],
)
def test_warning_over_plain_http(url: str, public: bool) -> None:
    assert ("not encrypted" in address.safety_warning(url)) is public


def test_a_name_with_a_public_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_: [(0, 0, 0, "", ("10.0.0.1", 0)), (0, 0, 0, "", ("8.8.8.8", 0))]
    )
    assert "ray.lab (8.8.8.8) is a public address" in address.safety_warning("http://ray.lab:8265")


def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"no job server answers at http://127.0.0.1:{port} .*ssh -L"):
            address.check_answers(f"http://127.0.0.1:{port}")
        taken.listen()
        address.check_answers(f"http://127.0.0.1:{port}")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    return tmp_path


def test_the_mode_is_set_where_there_is_a_token(home: Path) -> None:
    environ = {"RAY_AUTH_TOKEN": "x"}
    assert prepare_token(environ) is TokenFrom.VARIABLE and environ["RAY_AUTH_MODE"] == "token"
    (home / "t").write_text("x\n")
    environ = {"RAY_AUTH_TOKEN_PATH": str(home / "t")}
    assert prepare_token(environ) is TokenFrom.FILE and environ["RAY_AUTH_MODE"] == "token"
    environ = {}
    assert prepare_token(environ) is TokenFrom.NOWHERE and environ == {}
    (home / ".ray/auth_token").write_text("x\n")
    assert prepare_token(environ) is TokenFrom.HOME and environ["RAY_AUTH_MODE"] == "token"
    environ = {"RAY_AUTH_MODE": "disabled"}
    assert prepare_token(environ) is TokenFrom.OFF and environ == {"RAY_AUTH_MODE": "disabled"}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RAY_AUTH_MODE": "token"}, "there is no token"),
        ({"RAY_AUTH_MODE": "tokens"}, "neither token nor disabled"),
        ({"RAY_AUTH_TOKEN_PATH": "/no/such/file"}, "No such file"),
        ({"RAY_AUTH_TOKEN_PATH": "/dev/null"}, "is empty"),
    ],
)
def test_a_token_that_is_not_there(home: Path, environ: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        prepare_token(environ)


def test_refusals_say_what_to_do() -> None:
    assert "there is none here: set RAY_AUTH_TOKEN" in refusal(401, TokenFrom.NOWHERE)
    assert "RAY_AUTH_MODE=disabled here: unset it" in refusal(401, TokenFrom.OFF)
    assert "does not accept the token from ~/.ray/auth_token" in refusal(403, TokenFrom.HOME)
    assert "~/.netrc" in refusal(401, TokenFrom.VARIABLE)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    assert prepare_token({}) is TokenFrom.NOWHERE


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'aclcmp\[submit\]'"):
        client.JobClient.connect("http://127.0.0.1:1")
