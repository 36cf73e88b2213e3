"""Names of modules: the modules of a model, patterns that select names, and rules that change names."""

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
"""The name of the model itself. No child can have this name, because it would hide the method."""

_WRAPPED_NAMES = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
"""Names of the inner module in torch's wrappers (compile, checkpoint, FSDP). It is known by the wrapper's name."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedModule:
    """A module of a model. `inner` is the module inside torch's wrappers; without wrappers the module itself."""

    name: str
    module: Any
    inner: Any
    aliases: list[NamedModule]
    """The same object under further names, each with its parent under that name. The object is hooked once."""
    parent: NamedModule | None

    @property
    def names(self) -> list[str]:
        """All names of the object."""
        return [self.name, *(alias.name for alias in self.aliases)]


def walk(model: Any) -> list[NamedModule]:
    """Return the modules of `model` once each, parents first, under their first names.

    The modules inside a scripted one are left out: they run outside Python.
    """
    import torch

    found: list[NamedModule] = []
    by_identity: dict[int, NamedModule] = {}

    def visit(module: Any, name: str, parent: NamedModule | None) -> None:
        known = by_identity.get(id(module))
        if known is not None:
            known.aliases.append(NamedModule(name, module, known.inner, [], parent))
            return
        inner = module
        while (content := _unwrap_once(inner)) is not None:
            inner = content
        named = NamedModule(name, module, inner, [], parent)
        found.append(named)
        by_identity[id(module)] = by_identity[id(inner)] = named
        if isinstance(inner, torch.jit.ScriptModule):
            return
        for key, child in inner._modules.items():
            if child is not None:
                visit(child, key if name == ROOT else f"{name}.{key}", named)

    visit(model, ROOT, None)
    return found


def _unwrap_once(module: Any) -> Any:
    """Return the module inside one of torch's wrappers; None where the module is no wrapper."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    if isinstance(module, (DataParallel, DistributedDataParallel)):  # other classes may call a part `module`, too
        return module.module
    return next((child for key, child in module._modules.items() if key in _WRAPPED_NAMES), None)


class Patterns:
    """One or more globs over dotted names (`*` within a part, `**` across parts) or compiled regular expressions."""

    def __init__(self, patterns: Pattern | Iterable[Pattern]) -> None:
        """Compile the patterns. Raises LabelError for anything that is no pattern."""
        several = isinstance(patterns, Iterable) and not isinstance(patterns, str)
        given: list[Any] = list(patterns) if several else [patterns]  # type: ignore[arg-type]
        self._patterns = {
            (p.pattern if isinstance(p, re.Pattern) else p): p if isinstance(p, re.Pattern) else glob_regex(p)
            for p in given
        }

    def match(self, name: str) -> bool:
        """Tell whether a pattern matches the whole name."""
        return any(pattern.fullmatch(name) for pattern in self._patterns.values())

    def patterns_without_match(self, names: Sequence[str]) -> list[str]:
        """Return the texts of the patterns that match none of the names."""
        return [text for text, pattern in self._patterns.items() if not any(pattern.fullmatch(name) for name in names)]


def nearest(pattern: str, names: Sequence[str]) -> str:
    """Return up to three names that resemble a pattern, as the end of a message."""
    import difflib  # for a message only

    close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or list(names[:3])
    return f"nearest names: {', '.join(close)}" if close else "the model has no modules"


def renamer(rename: Rename | None) -> Callable[[str], str | None]:
    """Return the function that maps a module's name to its label's name; None for a module to skip.

    A glob renames the module that it matches and all modules inside; the glob that matches the longest part of the name
    counts. `{"a.**": "b.**"}` renames `a` too, because its parts have to stay in it; `""` is the model itself. Raises
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

    def new_name(name: str) -> str | None:
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            head = ".".join(parts[:length])
            for regex, replacement, with_parts in rules:
                if match := regex.fullmatch(head) or (regex.fullmatch(f"{head}.") if with_parts else None):
                    return None if replacement is None else _fill_stars(replacement, match, parts[length:])
        return name

    return new_name


def _fill_stars(replacement: str, match: re.Match[str], rest: Sequence[str]) -> str:
    stars = iter(match.groups())
    text = "".join(
        (next(stars) or "") + token.lstrip("*") if token.startswith("*") else token
        for token in TOKEN.findall(replacement)
    )
    return ".".join(part for part in (*text.split("."), *rest) if part)
