"""Read YAML that people write as plain mappings: once with typed values, once with the text that stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.user_file import read_user_file

_MOST_BYTES = 1 << 20
_MOST_NODES = 1 << 20
"""Most values of a file with its aliases written out; a file of `_MOST_BYTES` without aliases has fewer."""


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    """Construct a mapping. Raises ConstructorError for a key that occurs twice: YAML itself would take the last."""
    keys: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in keys:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            keys.add(key.value)
    loader.flatten_mapping(node)
    return {loader.construct_object(key, True): loader.construct_object(value, True) for key, value in node.value}


class _Typed(yaml.SafeLoader):
    pass


class _Written(yaml.SafeLoader):
    """Loader that keeps every scalar as its text: `HCCL_BUFFSIZE: 0200` must not become 128."""


_Written.yaml_implicit_resolvers = {
    "<": [each for each in yaml.SafeLoader.yaml_implicit_resolvers["<"] if each[0].endswith(":merge")]
}
_Typed.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Written.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _count_values(node: yaml.Node | None, counts: dict[int, int]) -> int:
    """Count the values below a node, those behind an alias each time. `counts` are the counts by a node's id."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counts:
        counts[id(node)] = 0  # a node within itself is refused when it is constructed
        below = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
        counts[id(node)] = 1 + sum(_count_values(each, counts) for each in below)
    return counts[id(node)]


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the mapping of a YAML file, with values by YAML's types, and with every value as text.

    Raises UsageError, with the file and the line, for what is no mapping or has a key twice.
    """
    content = read_user_file(path, _MOST_BYTES, "cluster file", "a cluster file (YAML), see cluster_configs/")
    try:
        text = content.decode("utf-8-sig")
        if _count_values(yaml.compose(text, _Typed), {}) > _MOST_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_NODES:,} values")
        found = yaml.load(text, _Typed), yaml.load(text, _Written)  # both construct plain values only
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start + 1} is not UTF-8; is this a cluster file?") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        words = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise UsageError(f"{path}{line}: {words}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found[0], dict) or not all(isinstance(key, str) for key in found[0]):
        raise UsageError(f"{path}: a cluster file is a mapping such as `address: http://10.0.0.1:8265`, `aclcmp: ...`")
    return found
