"""Files of patterns: what is read, what is refused and where, what is written."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.idmap.similarity import CandidateLabel
from aclcmp.orchestrator.idmap.suggest import Proposal, Suggestion, suggest
from aclcmp.orchestrator.inputs.id_map_file import quote_pattern, read_map, rule_text
from aclcmp.orchestrator.inputs.id_map_suggestion import suggestion_text
from aclcmp.orchestrator.plan.id_rules import IdMap, IdRule


def written(folder: Path, content: "str | bytes") -> Path:
    path = folder / "names.map"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_file(tmp_path: Path) -> None:
    content = """\ufeff
# a comment -> that is one
layers.*.o_proj  ->  h.*.dense   # why
layers.*.x->y -> h.*.x#1\r
"with blank" -> "quote\\" and # and \\u00e9"# why
   two words -> of an id

- -> h.*.dropout
-> h.*.nothing
golden.only -> -
golden.alone ->
"-" -> minus
"""
    ids = read_map(written(tmp_path, content))
    expected = {
        "h.3.dense": "layers.3.o_proj",
        "h.3.x#1": "layers.3.x->y",
        'quote" and # and é': "with blank",
        "of an id": "two words",
        "h.1.dropout": None,
        "h.1.nothing": None,
        "minus": "-",
        "x": "x",
    }
    assert {name: ids.golden_name_of(name) for name in expected} == expected
    assert [ids.keeps_golden(name) for name in ("golden.only", "golden.alone", "x")] == [False, False, True]


def test_an_empty_file_maps_nothing(tmp_path: Path) -> None:
    assert read_map(written(tmp_path, "")).golden_name_of("a") == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a -> b\nc", "names.map:2: no arrow in 'c'"),
        ("a->b", "names.map:1: no arrow in 'a->b'; write 'golden-pattern -> actual-pattern', with blanks around ->"),
        ("a # -> b", "names.map:1: no arrow"),
        ("\n\na -> b -> c", "names.map:3: '-> c' after the rule"),
        ('a -> "b" c', "names.map:1: 'c' after the rule"),
        ('a -> "b', "names.map:1: the quotes of '\"b' are not closed"),
        ('"a\\x" -> b', "names.map:1: the quotes of"),
        ('"" -> b', "names.map:1: an empty pattern"),
        ("->", "names.map:1: nothing on both sides"),
        ("- -> -", "names.map:1: nothing on both sides"),
        ("a -> b\na -> c", "names.map:2: 'a' is already on the golden side of line 1"),
        ("a.* -> b", "names.map:1: 'a.*' and 'b' differ in their number of stars"),
        ("a\0 -> b", "names.map:1: the control character '\\x00'"),
        ("a\rb -> c", "names.map:1: the control character '\\r'"),
        ("a -> b\x1b[31m", "names.map:1: the control character '\\x1b'"),
        (b"ok -> ok2\n\x89HDF\r\n\x1a\n", "names.map:2: byte 1 of the line is not UTF-8"),
        (b"a -> b\xff", "names.map:1: byte 7 of the line"),
        ("x" * 9000, "names.map:1: a line of 9000 bytes"),
        ("x" * 8000, "names.map:1: no arrow in 'xxx"),
        (b"\n" * (16 << 20) + b"\n", "names.map has more than 16 MiB"),
        ("a | b + c -> d", "names.map:1: + and | on one side"),
        ("\na | b -> c + d", "names.map:2: several ids joined by + or | on one side need one id on the other"),
        ("a | b -> -", "names.map:1: several ids joined by + or | on one side need one id on the other"),
        (
            "*.a|*.b -> *.c",
            "names.map:1: '*.a|*.b': write | with blanks around it, or an id that has one in double quotes",
        ),
        ("a.* | b -> c.*", "names.map:1: 'a.*' and 'b' differ in their number of stars"),
        ("a -> b\nc -> b | d", "names.map:2: 'b' is already on the actual side of line 1; keep one"),
        ("task:0 -> x", "names.map:1: a task needs a task on the other side, or - to drop it"),
        ("task:0 -> task:1\ntask:0 -> task:2", "names.map:2: task 0 is already on the golden side of line 1; keep one"),
        ("task:0 -> task:1\n- -> task:1", "names.map:2: task 1 is already on the actual side of line 1; keep one"),
        ("a.{n-4} -> a.{n}", "names.map:1: {n-4} is no number; write {n}, and {n+4} on the side that is higher by 4"),
        ("a.{n} -> a.*", "names.map:1: 'a.{n}' and 'a.*' differ in their number of stars"),
        ("a.*.{n} -> a.{n}.*", "names.map:1: {n} stands once in each pattern, at the same place among the stars"),
        ("a.{n}.{n} -> b.{n}.{n}", "names.map:1: {n} stands once in each pattern"),
        ("a.{n} -> b", "names.map:1: {n} stands once in each pattern"),
        ("\na -> rank:1", "names.map:2: 'rank:1': write ranks and a pattern, e.g. rank:1 layers.{n}"),
        ("a -> rank:4-1 b", "names.map:1: 'rank:4-1 b': write ranks and a pattern"),
        ("a -> rank:1,x b", "names.map:1: 'rank:1,x b': write ranks and a pattern"),
        ("a -> rank:1 -", "names.map:1: 'rank:1 -': one pattern is needed behind the ranks"),
        ("rank:1 a -> rank:1 b", "names.map:1: rank: on both sides"),
        ("a | b -> rank:1 c", "names.map:1: ids of some ranks are not joined in the same line"),
        ("x.* -> rank:1 a", "names.map:1: 'x.*' and 'a' differ in their number of stars"),
    ],
    ids=range(41),
)
def test_what_is_no_file_of_patterns(tmp_path: Path, content: "str | bytes", message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        read_map(written(tmp_path, content))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(UsageError, match=reason):
            read_map(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_rules_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    try:
        read_map(written(tmp_path_factory.getbasetemp(), content))
    except UsageError as error:
        assert len(str(error).splitlines()) == 1


ANY_ID = st.one_of(
    st.none(),
    st.text(min_size=1, max_size=30),
    st.text(alphabet="a->#\" \\.'\n|+", min_size=1, max_size=8),
    st.sampled_from(["task:3", "task:03", "task:", "a | b", "a + b"]),
)


@given(ANY_ID, ANY_ID)
def test_rules_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, golden: "str | None", actual: "str | None"
) -> None:
    rule = IdRule(golden, actual)
    try:
        IdMap([rule])
    except UsageError:
        return
    text = rule_text(rule)
    assert text.isprintable()
    ids = read_map(written(tmp_path_factory.getbasetemp(), text))
    if actual is None:
        assert golden is not None
        assert not ids.keeps_golden(golden)
    else:
        assert ids.rule_of(actual) == IdRule(golden, actual, 1)


@pytest.mark.parametrize("plain", ["a.b", "layers.*.x", "a->b", "h[3]", "é", "-x", "a/b:c"])
def test_what_needs_no_quotes(plain: str) -> None:
    assert quote_pattern(plain) == plain


HOSTILE = ["two words", "a # b", "line\nbreak", "-", '"', "a -> b", "\udc80", "\u2028", "\x1b[31m"]


def test_a_suggestion_is_a_file_of_its_certain_rules(tmp_path: Path) -> None:
    proposals = (
        Proposal(IdRule("layers.*.o_proj", "h.*.dense"), 0.9, ("names 80% alike", "in order"), 4),
        Proposal(IdRule("foo", "bar"), 0.5, ("others fit as well by name",), 1),
    )
    suggestion = Suggestion(3, proposals, ("left",), ("right", "right 2"))
    text = suggestion_text(suggestion, "runs/golden\nx -> y", "runs/actual")
    assert "\n# 0.90, 4 labels: names 80% alike; in order\nlayers.*.o_proj -> h.*.dense\n" in text
    assert "\n# 0.50, 1 label: others fit as well by name\n# foo -> bar\n" in text
    assert "\n# nothing found for 1 id of golden:\n#   left\n" in text
    assert "\n# nothing found for 2 ids of actual:\n#   right\n" in text
    assert '\n#   "right 2"\n' in text
    ids = read_map(written(tmp_path, text))
    assert [ids.golden_name_of(name) for name in ("h.3.dense", "bar", "y")] == ["layers.3.o_proj", "bar", "y"]


def test_hostile_ids_cannot_write_rules(tmp_path: Path) -> None:
    for left, right in zip(HOSTILE, HOSTILE[::-1], strict=True):
        rule = IdRule(f"golden {left}", f"actual {right}")
        suggestion = Suggestion(0, (Proposal(rule, 1.0, (), 1),), tuple(HOSTILE), tuple(HOSTILE))
        text = suggestion_text(suggestion, left, right)
        ids = read_map(written(tmp_path, text))
        assert ids.golden_name_of(rule.actual or "") == rule.golden
        assert [ids.golden_name_of(name) for name in HOSTILE] == HOSTILE
        assert all(line.isprintable() for line in text.split("\n"))


def test_from_labels_to_a_map(tmp_path: Path) -> None:
    golden = [CandidateLabel(f"model.layers.{n}.self_attn.o_proj", (2, 4), "float32", n) for n in range(4)]
    actual = [CandidateLabel(f"h.{n}.attention.dense", (2, 4), "float16", n) for n in range(4)]
    ids = read_map(written(tmp_path, suggestion_text(suggest(golden, actual), "a", "b")))
    assert [ids.golden_name_of(one.data_id) for one in actual] == [one.data_id for one in golden]
