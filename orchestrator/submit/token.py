"""Ray's token authentication on this side: the mode is set in the environment before Ray is imported.

Ray reads the mode once, when it is imported, and takes an unset one for "disabled" in a client of the job server even
where a token lies at hand.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from enum import Enum
from pathlib import Path

from aclcmp.orchestrator.errors import UsageError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


class TokenFrom(str, Enum):
    """Source of the token, in the order in which Ray looks for it."""

    VARIABLE = TOKEN
    FILE = TOKEN_PATH
    HOME = "~/.ray/auth_token"
    NOWHERE = "nowhere"
    OFF = f"{MODE}=disabled"


def prepare_token(environ: MutableMapping[str, str]) -> TokenFrom:
    """Set RAY_AUTH_MODE where the user did not and there is a token; return its source.

    Call it before Ray is imported. Raises UsageError for a token that is asked for and is not there.
    """
    mode = environ.get(MODE, "").lower()
    if mode not in ("", "token", "disabled"):
        raise UsageError(
            f"{MODE}={environ[MODE]} is neither token nor disabled; unset it to use a token if there is one"
        )
    if mode == "disabled":
        return TokenFrom.OFF
    source = _find_token(environ)
    if source is TokenFrom.NOWHERE:
        if mode == "token":
            raise UsageError(f"{MODE}=token, but there is no token: {how_to_give()}")
        return source
    environ[MODE] = "token"
    return source


def how_to_give() -> str:
    """Return how a user gives the token."""
    return (
        f"set {TOKEN} or {TOKEN_PATH}, or write it into {TokenFrom.HOME.value}; the head prints it: ray get-auth-token"
    )


def refusal(status: int, source: TokenFrom) -> str:
    """Return why the job server refused with 401 (no token) or 403 (a wrong one), and what to do."""
    if source is TokenFrom.OFF:
        return f"the cluster wants a token, and {MODE}=disabled here: unset it, then {how_to_give()}"
    if source is TokenFrom.NOWHERE:
        return f"the cluster wants a token, and there is none here: {how_to_give()}"
    if status == 401:
        return (
            f"the cluster wants a token, and that from {source.value} did not get there: a line for this host in "
            "~/.netrc counts instead of it, and a redirect, as from http to https, takes it away"
        )
    return f"the cluster does not accept the token from {source.value}: {how_to_give()}"


def _find_token(environ: MutableMapping[str, str]) -> TokenFrom:
    if environ.get(TOKEN, "").strip():
        return TokenFrom.VARIABLE
    if path := environ.get(TOKEN_PATH, ""):
        _check_token_file(Path(path), f"{TOKEN_PATH}={path}")
        return TokenFrom.FILE
    try:
        home = Path(TokenFrom.HOME.value).expanduser()
    except RuntimeError:  # there is no home folder
        return TokenFrom.NOWHERE
    if home.is_file():
        _check_token_file(home, TokenFrom.HOME.value)
        return TokenFrom.HOME
    return TokenFrom.NOWHERE


def _check_token_file(path: Path, name: str) -> None:
    try:
        content = path.read_text(errors="replace").strip()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}; {how_to_give()}") from None
    if not content:
        raise UsageError(f"{name} is empty; {how_to_give()}")
