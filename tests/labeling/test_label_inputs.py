"""What a label was computed from: named by the user, kept in every form of a shard, given golden names by a map."""

import json
import os
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.errors import ShardFormatError
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.shard_files import dataset_name, shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.labeling.shard.shard_writer import ShardWriter
from aclcmp.orchestrator.plan.id_rules import IdMap, IdRule
from aclcmp.orchestrator.plan.planner import plan_run, plan_two
from tests.labeling.shard.conftest import bits_of, record_of
from tests.labeling.test_api import run_script
from tests.plan.test_planner import index, label

IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
VALUES = np.arange(3, dtype=np.float32)
HEADER = ShardHeader("run", 3, 8, 3, 0, "host", 42, 1.5)


def inputs_of(index: ShardIndex) -> dict[str, tuple[str, ...]]:
    return {record.data_id: record.inputs for record in index.records}


def test_every_kind_of_label_keeps_its_inputs(tmp_path: Path) -> None:
    script = """
import numpy as np
from aclcmp import set_label
x = np.ones(2)
set_label("pta", "list", x, inputs=["a", "b"])
set_label("acl", "tuple", x, inputs=("b", "a", "b"))
set_label("ref", "reference", x, inputs=["目/%"])
set_label("acl", "low level", None, "dumped.bin", inputs=["a"])
set_label("pta", "wrong", [x], inputs=["a"])
set_label("pta", "empty", x, inputs=[])
set_label("pta", "none", x)
"""
    (index,), _ = run_script(tmp_path, script)
    assert inputs_of(index) == {
        "list": ("a", "b"),
        "tuple": ("b", "a", "b"),
        "reference": ("目/%",),
        "low level": ("a",),
        "wrong": ("a",),
        "empty": (),
        "none": (),
    }
    assert [record.data_id for record in index.records if record.error] == ["wrong"]


WRONG = {
    "'x'": "inputs='x' is one string; give a list of ids: inputs=['x']",
    "'layers.0'": "inputs=['layers.0']",
    "b'x'": "inputs is a bytes; give a list of the ids",
    "{'a': 1}": "inputs is a dict",
    "{'a'}": "inputs is a set",
    "7": "inputs is a int",
    "np.ones(2)": "inputs is a ndarray",
    "(name for name in 'ab')": "inputs is a generator",
    "['a', 7]": "each of inputs must be a non-empty string, not 7",
    "['']": "each of inputs must be a non-empty string",
    "[None]": "not None",
    "[['a']]": "not ['a']",
    "['x' * 2000]": "each of inputs must be plain text of at most 1024 characters",
    "['\\0']": "plain text",
    "['\\ud800']": "plain text",
    "['a'] * 1025": "inputs are 1,025 ids; give at most 1,024",
    "['a' * 1000] * 17": "16,384 characters",
}


def test_wrong_inputs_make_a_failed_label_that_says_what_to_give(tmp_path: Path) -> None:
    lines = "\n".join(f'set_label("pta", "{n}", np.ones(2), inputs={wrong})' for n, wrong in enumerate(WRONG))
    (index,), stderr = run_script(tmp_path, f"import numpy as np\nfrom aclcmp import set_label\n{lines}\n")
    assert len(index.records) == len(WRONG)
    for record, words in zip(index.records, WRONG.values(), strict=True):
        assert words in record.error and not record.inputs and len(record.error) < 600
    assert "is one string" in stderr


def test_wrong_inputs_raise_when_strict(tmp_path: Path) -> None:
    script = "import numpy as np\nfrom aclcmp import set_label\nset_label('acl', 'y', np.ones(2), inputs='x')"
    _, stderr = run_script(tmp_path, script, strict=True, ok=False)
    assert "LabelError: inputs='x' is one string" in stderr


def test_off_nothing_looks_at_them() -> None:
    script = """
import sys
from aclcmp import set_label
assert set_label("pta", "x", object(), inputs=7) is None
assert set_label("pta", "x", object(), inputs="x") is None
for heavy in ("torch", "ray", "h5py", "numpy"):
    assert heavy not in sys.modules, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ))


@settings(max_examples=25)
@given(st.lists(st.lists(IDS, max_size=4), min_size=1, max_size=5))
def test_they_come_back_from_the_journal_the_table_and_a_recovered_shard(
    tmp_path_factory: pytest.TempPathFactory, several: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(folder, HEADER)
    for number, inputs in enumerate(several):
        record = replace(record_of(VALUES, f"x{number}", 2 * number), inputs=tuple(inputs))
        writer.add(record, bits_of(VALUES))
        writer.note(
            LabelRecord(0, f"y{number}", 0, "acl", 2 * number + 1, 0.5, "f:2", error="no", inputs=record.inputs)
        )
    wanted = {f"{name}{number}": tuple(inputs) for number, inputs in enumerate(several) for name in "xy"}
    assert inputs_of(read_shard(writer.files)) == wanted
    writer.detach()  # as if the process had died
    path = writer.files.segment(0)
    recover(path)
    with h5py.File(path) as file:
        for number, inputs in enumerate(several):
            attributes = file[dataset_name(0, f"x{number}", 0, "pta")].attrs
            assert json.loads(attributes.get("inputs", "[]")) == inputs
    writer.files.journal.unlink()
    assert inputs_of(read_shard(writer.files)) == wanted


def test_a_killed_process_leaves_them_behind(tmp_path: Path) -> None:
    script = """
import os, signal
import numpy as np
from aclcmp import set_label
for n in range(100):
    set_label("pta", f"x{n}", np.full(50, n), inputs=[f"x{n - 1}", "mask"])
os.kill(os.getpid(), signal.SIGKILL)
"""
    (index,), _ = run_script(tmp_path, script, ok=False)
    wanted = {f"x{n}": (f"x{n - 1}", "mask") for n in range(100)}
    assert inputs_of(index) == wanted
    recover(index.files.segment(0))
    (files,) = shards_in(tmp_path)
    files.journal.unlink()
    assert inputs_of(read_shard(files)) == wanted


def torn(folder: Path, *lines: str) -> ShardIndex:
    """Read a shard that was not closed, with lines appended to its journal."""
    writer = ShardWriter(folder, HEADER)
    writer.add(record_of(VALUES, "x", 0), bits_of(VALUES))
    writer.detach()
    with writer.files.journal.open("ab") as file:
        for text in lines:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
    return read_shard(writer.files)


LINE = '[0,"y",0,"acl",1,0.5,"f:1","",[],"","","a.bin","",0,null,0,0,"","full"'


@pytest.mark.parametrize(("end", "inputs"), [("]", ()), (",[]]", ()), (',["a","b"]]', ("a", "b"))])
def test_a_line_without_them_is_read(tmp_path: Path, end: str, inputs: tuple[str, ...]) -> None:
    index = torn(tmp_path, LINE + end)
    assert inputs_of(index) == {"x": (), "y": inputs} and not index.damaged


@pytest.mark.parametrize("end", [',"a"]', ",7]", ",[7]]", ',[["a"]]]', ",{}]", ",null]", ',[],"more"]'])
def test_a_line_with_impossible_ones_is_damage(tmp_path: Path, end: str) -> None:
    index = torn(tmp_path, LINE + end)
    assert inputs_of(index) == {"x": ()} and index.damaged == 1


def sealed(folder: Path) -> ShardWriter:
    """Write a shard of one label that has inputs, without its journal."""
    writer = ShardWriter(folder, HEADER)
    writer.add(replace(record_of(VALUES, "x", 0), inputs=("a", "bc")), bits_of(VALUES))
    writer.close()
    writer.files.journal.unlink()
    return writer


def test_a_table_without_them_is_read(tmp_path: Path) -> None:
    writer = sealed(tmp_path)
    with h5py.File(writer.files.segment(0), "r+") as file:
        table = file["labels"][:]
        assert table["inputs"].tolist() == [b'["a", "bc"]']
        del file["labels"]
        file["labels"] = table[[name for name in table.dtype.names if name != "inputs"]]
    assert inputs_of(read_shard(writer.files)) == {"x": ()}


@pytest.mark.parametrize("cell", [b"{", b"7", b'"a"', b"[7]", b'{"a":1}', b"[" * 11])
def test_a_table_with_impossible_ones_is_refused(tmp_path: Path, cell: bytes) -> None:
    writer = sealed(tmp_path)
    with h5py.File(writer.files.segment(0), "r+") as file:
        table = file["labels"][:]
        table["inputs"] = cell
        file["labels"][:] = table
    with pytest.raises(ShardFormatError, match="table of labels"):
        read_shard(writer.files)


def test_a_plan_tells_them() -> None:
    plan = plan_run([index(0, label("x", "pta", 0, inputs=("a",)), label("x", "acl", 1, inputs=("b",)))], 1)
    sides = plan.labels[0].sides[0]
    assert sides.golden is not None and sides.golden.facts.inputs == ("a",)
    assert sides.actual is not None and sides.actual.facts.inputs == ("b",)


def test_a_map_gives_those_of_actual_labels_their_golden_names() -> None:
    golden = [index(0, label("layers.0.mlp", "pta", 0, inputs=("h.0.attn",)), world_size=1)]
    actual = [index(0, label("h.0.ffn", "acl", 0, inputs=("h.0.attn", "extra", "x", "h.0.ffn")), world_size=1)]
    rules = [IdRule("layers.*.mlp", "h.*.ffn"), IdRule("layers.*.attention", "h.*.attn"), IdRule(None, "extra")]
    plan = plan_two(golden, actual, 1, IdMap(rules))
    sides = plan.labels[0].sides[0]
    assert len(plan.pairs) == 1
    assert sides.golden is not None and sides.golden.facts.inputs == ("h.0.attn",)
    assert sides.actual is not None
    assert sides.actual.facts.inputs == ("layers.0.attention", "x", "layers.0.mlp")
