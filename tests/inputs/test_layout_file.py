"""Files of layouts: what is read, what is refused and where, what they change."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.layout import Layout, Partial, Placement, Replicate, Shard, layout_from_text
from aclcmp.orchestrator.core.plan import GapKind
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.layout_file import read_layouts
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from tests.plan.test_planner import index, label


def written(folder: Path, content: str) -> Path:
    path = folder / "layouts.txt"
    path.write_text(content)
    return path


CONTENT = """# what the run told wrongly
layers.*.qkv -> Shard(dim=-1, parts=(4, 2, 2))   # fused
golden layers.0.* -> Shard(0)
actual layers.** -> Replicate()
golden "with blank" -> Partial(sum, ranks=range(0, 4))
golden -> Shard(1, zigzag=True)
pta ** -> Replicate(), Shard(1, ranks=(0, 3))
"""


def test_a_file(tmp_path: Path) -> None:
    rules = read_layouts(written(tmp_path, CONTENT))
    names = ("layers.3.qkv", "layers.0.x", "golden", "with blank", "none")
    indices = [index(0, *(label(name, side, n) for side in ("pta", "acl") for n, name in enumerate(names)))]
    (changed,), notes = rules.apply(indices, "")
    found = {(each.side, each.data_id): str(each.layout) if each.layout else "" for each in changed.records}
    both = "Replicate(), Shard(dim=1, ranks=(0, 3))"
    assert {name: found["acl", name] for name in names} == {
        "layers.3.qkv": "Shard(dim=-1, parts=(4, 2, 2))",
        "layers.0.x": "Replicate()",
        "golden": "Shard(dim=1, zigzag=True)",
        "with blank": "",
        "none": "",
    }
    assert {name: found["pta", name] for name in names} == {
        "layers.3.qkv": both.replace("(0, 3)", "range(0, 4, 3)"),
        "layers.0.x": "Shard(dim=0)",
        "golden": both.replace("(0, 3)", "range(0, 4, 3)"),
        "with blank": "Partial(sum, ranks=range(0, 4))",
        "none": both.replace("(0, 3)", "range(0, 4, 3)"),
    }
    assert not notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a -> b", "layouts.txt:1: 'b': b is none of Shard, Replicate, Partial"),
        ("\n\na -> Shard(1", "layouts.txt:3: 'Shard(1': this is not how layouts are written"),
        ("a -> Shard()", "Shard needs a dim"),
        ("a -> Shard(0), Shard(1)", "each needs the ranks that it goes over"),
        ("a -> Shard(0, parts=(1, -1))", "parts are sizes"),
        ("a -> Shard(0, parts=(1, (4, 0)))", "how many ranks hold the same slice"),
        ("a -> Shard(0, parts=(1, (4, 2, 2)))", "a part is a size, or (size, copies)"),
        ("a -> Shard(0, parts=(1, (4, 'x')))", "cannot be interpreted as an integer"),
        ("a -> __import__('os').getcwd()", "is none of Shard, Replicate, Partial"),
        ("a -> Shard(dim=__import__('os'))", "malformed node"),
        ("a -> Shard(0, ranks=range(99999999999))", "ranks are numbers"),
        ("a -> -", "a pattern and a layout are needed"),
        ("a Shard(1)", "no arrow in 'a Shard(1)'"),
        ("a -> Shrad(1)", "(did you mean Shard?)"),
        ("a -> Shard(dmi=1)", "(did you mean dim?)"),
        ("golde a.b -> Shard(1)", "layouts.txt:1: 'golde' is no side; did you mean golden?"),
        ('"golde a.b" -> Shard(1)', ""),
        ("a b -> Shard(1)", ""),
        ("golden a b -> Shard(1)\ngolden [ -> Shard(1)", ""),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, content)
    if not message:
        read_layouts(path)
        return
    with pytest.raises(UsageError) as refused:
        read_layouts(path)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_layouts(tmp_path / "nowhere")


RANKS = st.one_of(
    st.none(),
    st.lists(st.integers(0, 40), min_size=1, max_size=5, unique=True),
    st.tuples(st.integers(0, 9), st.integers(1, 9), st.integers(1, 3)).map(
        lambda r: range(r[0], r[0] + r[1] * r[2], r[2])
    ),
)
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=4)
PLACEMENTS = st.one_of(
    st.builds(Replicate, RANKS),
    st.builds(Partial, RANKS),
    st.builds(Shard, st.integers(-4, 4), ranks=RANKS),
    st.builds(Shard, st.integers(-4, 4), SIZES, ranks=RANKS),
    st.builds(Shard, st.integers(-4, 4), zigzag=st.just(True), ranks=RANKS),
    st.builds(Shard, st.integers(-4, 4), size=st.integers(0, 99), ranks=RANKS),
)


@given(PLACEMENTS)
def test_what_is_printed_can_be_read(placement: Placement) -> None:
    from aclcmp.labeling.layout import layout_of

    layout = layout_of(placement)
    assert layout_from_text(str(layout)) == layout == Layout.from_json(layout.to_json())


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        layout_from_text(text)
    except ValueError as error:
        assert "\n" not in str(error) and "write e.g. Shard(dim=1" in str(error)


def test_layouts_change_a_plan(tmp_path: Path) -> None:
    """A fused projection that was compared as plain slices; one run, and two."""
    rules = read_layouts(written(tmp_path, "x -> Shard(0, parts=(2, 2))\nnothing -> Replicate()\n"))
    ranks = [index(r, label("x", "pta", 0, (8,)), label("x", "acl", 1, (4,))) for r in range(2)]
    for plan in (plan_run(ranks, 2, rules), plan_two(ranks, ranks, 2, None, rules)):
        assert [pair.region.start for pair in plan.pairs] == [(0,), (4,), (2,), (6,)]
        assert plan.pairs[0].layout == "Shard(dim=0, parts=(2, 2))"
        assert any(note.endswith("layouts.txt: line 2") for note in plan.notes)
    wrong = read_layouts(written(tmp_path, "x -> Shard(3)"))
    (gap, _) = plan_run(ranks, 2, wrong).gaps
    assert gap.kind is GapKind.MISMATCH and "no such dimension" in gap.reason


def test_each_group_of_ranks_has_its_own_rule(tmp_path: Path) -> None:
    rules = read_layouts(written(tmp_path, "x -> Shard(0, ranks=(0, 1))\nx -> Shard(0, ranks=(3, 2))\n"))
    ranks = [index(r, label("x", "pta", 0, (8,)), label("x", "acl", 1, (4,))) for r in range(4)]
    plan = plan_run(ranks, 4, rules)
    assert [pair.region.start for pair in plan.pairs] == [(0,), (4,), (4,), (0,)]


def test_the_file_of_the_docs_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text()
    block = next(block for block in text.split("```") if "[golden|actual] pattern" in block)
    assert len(read_layouts(written(tmp_path, block)).rules) == 5


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "[]", "1", '{"placements":[]}', '{"placements":"Shard(1)"}', '{"placements":[1]}'),
        '{"placements":["Shard(1)"],"whole_shape":[1e400],"spans":[[[0,1]]]}',
        '{"placements":["Shard(1)"],"whole_shape":[4],"spans":["ab"]}',
        '{"placements":["Shard(1)"],"whole_shape":[4],"spans":[[[2,3]]]}',
        '{"placements":["Shard(1)"],"spans":[[[0,1]]]}',
    ],
)
def test_what_is_no_layout_in_a_shard(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a layout|impossible place"):
        Layout.from_json(text)
