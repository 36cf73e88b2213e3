"""Hide secrets in records of variables and command lines: texts go in, the same without secrets come out.

Hidden is what a name calls a secret (`--api-key`, `HF_TOKEN=`, `?sig=`), the user of a URL (`http://me:password@proxy`),
and what looks like one by itself: `sk-...`, or a long run of letters and digits at random. A rule of thumb: what looks
like a word is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

HIDDEN = "(hidden)"

_IN_VARIABLES = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY", "CREDENTIAL", "AUTH")
_LAST_PART = r"(?:secret|passw(?:or)?d|passphrase|pwd|credentials?)"
_WEAK_LAST_PART = r"(?:token|(?:api|access|secret|private)?key|auth|authorization|sig(?:nature)?)"
"""Also the end of innocent names: of `--pad-token 0` the value, a number, is shown."""
_NAME = rf"(?:[\w.-]*[_.-])?(?:{_LAST_PART}|(?P<weak>{_WEAK_LAST_PART}))"
_OPTION = re.compile(rf"--?{_NAME}", re.IGNORECASE)
_VALUE = r"""(?P<value>\(hidden\)|"[^"]*"|'[^']*'|[^\s"'&;,)}\]]+)"""
_ASSIGNED = re.compile(
    rf"(?P<before>(?<![\w.-])(?P<dash>--?)?{_NAME}(?(dash)(?:\s+|=)|=)){_VALUE}",
    re.IGNORECASE,
)
_AFTER_WORD = re.compile(r"(?P<before>\b(?:bearer|authorization:(?: *(?:bearer|basic))?) +)[^\s\"']+", re.IGNORECASE)
_USER = re.compile(r"://[^/\s@]+@")
_USER_WITHOUT_SCHEME = re.compile(r"(?<![\w/@:.-])[\w.+%-]+:[^\s:@/]+@(?=[\w\[])")
_KNOWN = re.compile(
    r"(?<![\w/])(?:sk-|hf_|gh[opsu]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|eyJ)[\w.+/=-]{12,}",
)
_RUN = re.compile(r"(?<![\w/+=-])[\w+=-]{24,}(?![\w/+=-])", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SEPARATORS = re.compile(r"[-_]")
_TURNS, _TURNS_OF_PARTS = 0.3, 0.36
"""A run at random goes 0.45 times a character from letters to digits, back, or from small letters to capitals; names
do at most 0.26 times. One with separators, which are a name's rather than a secret's, must do so more often.
"""
_SHORTEST_OF_PARTS = 32


def sounds_secret(name: str) -> bool:
    """Return whether the name of a variable says that its value must not be shown or recorded."""
    return any(word in name.upper() for word in _IN_VARIABLES)


def redact(text: str) -> str:
    """Return a value, or a text that may be a command line, without what is secret in it."""
    text = _USER.sub(f"://{HIDDEN}@", text)
    text = _USER_WITHOUT_SCHEME.sub(f"{HIDDEN}@", text)
    text = _AFTER_WORD.sub(lambda found: found["before"] + HIDDEN, text)
    text = _ASSIGNED.sub(lambda found: found[0] if _is_innocent(found) else found["before"] + HIDDEN, text)
    text = _KNOWN.sub(HIDDEN, text)
    return _RUN.sub(lambda found: HIDDEN if _is_random(found[0]) else found[0], text)


def redact_words(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words of a command line without what is secret in them."""
    shown: list[str] = []
    option: re.Match[str] | None = None
    for word in words:
        secret = option is not None and not word.startswith("-") and not (option["weak"] and word.isdecimal())
        shown.append(HIDDEN if secret else redact(word))
        option = _OPTION.fullmatch(word)
    return tuple(shown)


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable is secret, by its name or by its value."""
    return sounds_secret(name) or redact(value) != value


def _is_innocent(found: re.Match[str]) -> bool:
    return bool(found["weak"]) and found["value"].isdecimal()


def _is_random(run: str) -> bool:
    bare = _SEPARATORS.sub("", run)
    turns = sum(a.isdigit() != b.isdigit() or (a.islower() and b.isupper()) for a, b in pairwise(bare))
    if bare == run:
        return turns >= _TURNS * len(run)
    return len(run) >= _SHORTEST_OF_PARTS and not _UUID.search(run) and turns >= _TURNS_OF_PARTS * len(bare)
