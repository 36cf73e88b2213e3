"""YAML that people write: a file's text goes in, plain mappings come out, once typed and once as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from aclcmp.orchestrator.errors import UsageError

_MOST_BYTES = 1 << 20


def _mapping(loader: yaml.SafeLoader | yaml.BaseLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    """Construct a mapping, but not one that has a key twice: YAML itself would take the last."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            seen.add(key.value)
    if isinstance(loader, yaml.SafeLoader):
        loader.flatten_mapping(node)
    return {loader.construct_object(key, True): loader.construct_object(value, True) for key, value in node.value}


class _Typed(yaml.SafeLoader):
    pass


class _Written(yaml.BaseLoader):
    """Every scalar is the text that stands there: `HCCL_BUFFSIZE: 0200` shall not become 128."""


_Typed.add_constructor("tag:yaml.org,2002:map", _mapping)
_Written.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the mapping of a YAML file, with values by YAML's types, and with every value as text.

    Raises UsageError, with the file and the line, for what is no mapping or has a key twice.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give a cluster file (YAML), see cluster_configs/") from None
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{path} has more than {_MOST_BYTES >> 20} MiB; that is no cluster file")
    try:
        text = content.decode("utf-8-sig")
        found = yaml.load(text, _Typed), yaml.load(text, _Written)  # both construct plain values only
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start + 1} is not UTF-8; is this a cluster file?") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{path}{line}: {' '.join(str(error.problem or error.context).split())}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found[0], dict) or not all(isinstance(key, str) for key in found[0]):
        raise UsageError(f"{path}: a cluster file is a mapping such as `address: http://10.0.0.1:8265`, `aclcmp: ...`")
    return found
