"""Module names: choosing by patterns, mapping a differently built model's names, walking a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.globs import TOKEN, glob_regex

Pattern: TypeAlias = "str | re.Pattern[str]"
Rename: TypeAlias = "Mapping[str, str | None] | Callable[[str], str | None]"

ROOT = "forward"
"""The name of the model itself: no child can have it, for it would hide the method."""

_WRAPPED = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
"""What torch's wrappers (compile, checkpoint, FSDP) call the module inside; the wrapper answers to its name."""


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """A module of a model. `inner` is what a wrapper of torch's wraps, elsewhere the module itself."""

    name: str
    module: Any
    inner: Any
    aliases: list[Named]
    """The same object under further names, each with the parent that has it there: it is hooked once."""
    parent: Named | None

    @property
    def names(self) -> list[str]:
        """All names of the object."""
        return [self.name, *(alias.name for alias in self.aliases)]


def walk(model: Any) -> list[Named]:
    """Return the modules of `model` once each, parents first, under their first names.

    The modules inside a scripted one are left out: they run outside Python.
    """
    import torch

    found: list[Named] = []
    seen: dict[int, Named] = {}

    def visit(module: Any, name: str, parent: Named | None) -> None:
        known = seen.get(id(module))
        if known is not None:
            known.aliases.append(Named(name, module, known.inner, [], parent))
            return
        inner = module
        while (wrapped := _wrapped(inner)) is not None:
            inner = wrapped
        named = Named(name, module, inner, [], parent)
        found.append(named)
        seen[id(module)] = seen[id(inner)] = named
        if isinstance(inner, torch.jit.ScriptModule):
            return
        for key, child in inner._modules.items():
            if child is not None:
                visit(child, key if name == ROOT else f"{name}.{key}", named)

    visit(model, ROOT, None)
    return found


def _wrapped(module: Any) -> Any:
    """The module that a wrapper of torch's is around; None for what is no wrapper."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    if isinstance(module, (DataParallel, DistributedDataParallel)):  # other classes may call a part `module`, too
        return module.module
    return next((child for key, child in module._modules.items() if key in _WRAPPED), None)


class Patterns:
    """One or more globs over dotted names (`*` within a part, `**` across parts) or compiled regular expressions."""

    def __init__(self, patterns: Pattern | Iterable[Pattern]) -> None:
        """Raises LabelError for what is no pattern."""
        several = isinstance(patterns, Iterable) and not isinstance(patterns, str)
        given: list[Any] = list(patterns) if several else [patterns]  # type: ignore[arg-type]
        self._patterns = {
            (p.pattern if isinstance(p, re.Pattern) else p): p if isinstance(p, re.Pattern) else glob_regex(p)
            for p in given
        }

    def match(self, name: str) -> bool:
        """Whether one of them matches the whole name."""
        return any(pattern.fullmatch(name) for pattern in self._patterns.values())

    def unmatched(self, names: Sequence[str]) -> list[str]:
        """Those that match none of the names, as they were given."""
        return [text for text, pattern in self._patterns.items() if not any(pattern.fullmatch(name) for name in names)]


def nearest(pattern: str, names: Sequence[str]) -> str:
    """Return up to three of the names that a user may have meant, as the end of a message."""
    import difflib  # for a message only

    close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or list(names[:3])
    return f"nearest names: {', '.join(close)}" if close else "the model has no modules"


def renamer(rename: Rename | None) -> Callable[[str], str | None]:
    """Return the function that maps a module's name to its label's, None for a module to skip.

    A glob renames the module that it matches and all that is inside; of several the one that matches most of the name
    counts. `{"a.**": "b.**"}` renames `a` too, for its parts have to stay in it; `""` is the model itself. Raises
    LabelError for a replacement with more stars than its glob.
    """
    if rename is None:
        return lambda name: name
    if callable(rename):
        return rename
    if not isinstance(rename, Mapping):
        raise LabelError(f"rename is a {type(rename).__name__}; give {{glob: replacement}} or a function of the name")
    rules = []
    for pattern, replacement in rename.items():
        regex = glob_regex(pattern)
        if replacement is not None and not isinstance(replacement, str):
            raise LabelError(f"rename={{{pattern!r}: {replacement!r}}}: give a text with stars, or None to skip")
        stars = [token for token in TOKEN.findall(replacement or "") if token.startswith("*")]
        if len(stars) > regex.groups:
            raise LabelError(f"rename={{{pattern!r}: {replacement!r}}}: more stars on the right than on the left")
        rules.append((regex, replacement, replacement is not None and pattern.endswith(".**")))

    def renamed(name: str) -> str | None:
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            head = ".".join(parts[:length])
            for regex, replacement, itself in rules:
                if found := regex.fullmatch(head) or (regex.fullmatch(f"{head}.") if itself else None):
                    return None if replacement is None else _filled(replacement, found, parts[length:])
        return name

    return renamed


def _filled(replacement: str, found: re.Match[str], rest: Sequence[str]) -> str:
    stars = iter(found.groups())
    text = "".join(
        (next(stars) or "") + token.lstrip("*") if token.startswith("*") else token
        for token in TOKEN.findall(replacement)
    )
    return ".".join(part for part in (*text.split("."), *rest) if part)
