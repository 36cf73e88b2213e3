"""Choosing modules by patterns and renaming them; and that all of it is nothing when off."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.watch.module_names import Patterns, nearest, renamer


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("layers.*.mlp", "layers.12.mlp", True),
        ("layers.*.mlp", "layers.12.mlp.act", False),
        ("layers.*.mlp", "layers.1.2.mlp", False),
        ("layers.*", "layers.3", True),
        ("layers.*", "layers", False),
        ("**.self_attn", "model.layers.0.self_attn", True),
        ("**.self_attn", "self_attn", True),
        ("**.self_attn", "cross_self_attn", False),
        ("model.**", "model.a.b", True),
        ("model.**", "model", False),
        ("model.**.mlp", "model.mlp", True),
        ("**", "forward", True),
        ("*", "forward", True),
        ("?_proj", "q_proj", True),
        ("?_proj", "._proj", False),
        ("[qk]_proj", "k_proj", True),
        ("[!qk]_proj", "k_proj", False),
        ("[!qk]_proj", "v_proj", True),
        ("a.b", "axb", False),
        ("a[", "a[", True),
        ("a+(b)$", "a+(b)$", True),
        (re.compile(r"layers\.(0|1)"), "layers.1", True),
        (re.compile(r"layers\.(0|1)"), "layers.10", False),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_patterns(pattern: "str | re.Pattern[str]", name: str, matches: bool) -> None:
    assert Patterns(pattern).match(name) is matches
    assert Patterns([pattern, "never"]).match(name) is matches
    assert Patterns((pattern, "never")).patterns_without_match([name]) == (
        [] if matches else [getattr(pattern, "pattern", pattern)]
    ) + ["never"]


@given(st.text(alphabet="ab.*?[]!\\-^", max_size=12), st.text(alphabet="ab.", max_size=12))
def test_any_text_is_a_pattern_or_a_label_error(pattern: str, name: str) -> None:
    try:
        Patterns(pattern).match(name)
    except LabelError as error:
        assert repr(pattern) in str(error)


@pytest.mark.parametrize("wrong", [3, [None], [b"a"], "[b-a]"])
def test_what_is_no_pattern(wrong: Any) -> None:
    with pytest.raises(LabelError, match="is not a pattern"):
        Patterns(wrong)


@pytest.mark.parametrize(
    ("rules", "name", "new"),
    [
        (None, "a.b", "a.b"),
        ({"transformer.encoder.layers.*": "model.layers.*"}, "transformer.encoder.layers.3", "model.layers.3"),
        (
            {"transformer.encoder.layers.*": "model.layers.*"},
            "transformer.encoder.layers.3.mlp.up",
            "model.layers.3.mlp.up",
        ),
        ({"transformer.encoder.layers.*": "model.layers.*"}, "transformer.encoder", "transformer.encoder"),
        ({"h.*": "layers.*", "h.*.attn": "layers.*.self_attn"}, "h.7.attn.q", "layers.7.self_attn.q"),
        ({"h.*.attn": "layers.*.self_attn", "h.*": "layers.*"}, "h.7.mlp", "layers.7.mlp"),
        ({"**.attn": "**.self_attn"}, "h.0.attn.q", "h.0.self_attn.q"),
        ({"**.attn": "**.self_attn"}, "attn", "self_attn"),
        ({"a.**": "b.**"}, "a.x.y", "b.x.y"),
        ({"*.*_proj": "*.proj_*"}, "at.q_proj", "at.proj_q"),
        ({"module": ""}, "module.layers.0", "layers.0"),
        ({"module.**": "**"}, "module.layers.0", "layers.0"),
        ({"module.**": "**"}, "module", ""),
        ({"a.**": "b.**"}, "a", "b"),
        ({"a.**": None}, "a", "a"),
        ({"a.**": "b.**"}, "ab", "ab"),
        ({"*.a": "x"}, "3.a.b", "x.b"),
        ({"a": None}, "a.b", None),
        ({"a": None, "a.b": "c"}, "a.b", "c"),
        (str.upper, "a.b", "A.B"),
        (lambda name: None, "a", None),
    ],
)
def test_rename(rules: Any, name: str, new: str | None) -> None:
    assert renamer(rules)(name) == new


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"a.*": "*.*"}, "more stars on the right"),
        ({"a": 3}, "give a text"),
        ({3: "a"}, "not a pattern"),
        (7, "rename is a int"),
        ("a", "rename is a str"),
    ],
)
def test_rename_that_cannot_be(rules: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        renamer(rules)


def test_nearest_names() -> None:
    names = ["model.layers.0.mlp", "model.layers.0.self_attn", "lm_head"]
    assert nearest("layers.*.mlp", names).startswith("nearest names: model.layers.0.mlp")
    assert nearest("~~~~", names) == "nearest names: model.layers.0.mlp, model.layers.0.self_attn, lm_head"
    assert nearest("x", []) == "the model has no modules"


def test_off_means_off() -> None:
    script = """
import sys
from aclcmp.labeling.watch import watch
with watch(object(), "nonsense", include=3, rename=7) as watching:
    assert watching.ids == {} and watching.notes == ()
watching.close()
for heavy in ("torch", "ray", "h5py", "numpy", "difflib", "aclcmp.labeling.watch.hooks"):
    assert heavy not in sys.modules, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ))
