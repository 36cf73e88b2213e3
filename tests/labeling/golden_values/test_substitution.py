"""Golden's values for the call or the rows under way, from real shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aclcmp.labeling import api
from aclcmp.labeling.errors import LabelError
from aclcmp.labeling.golden_values.golden_shards import GoldenShards
from aclcmp.labeling.golden_values.substitution import Substitution, label_and_replace, substitution
from aclcmp.labeling.identity import GOLDEN, INJECT
from aclcmp.labeling.layout import Shard
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from aclcmp.labeling.watch import messages
from tests.recorded import recorder_of

torch: Any = pytest.importorskip("torch")
WHOLE = torch.arange(40.0).reshape(10, 4)
TOKENS = [10 + place for place in range(10)]


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A golden run: `x` in three calls, and the rows of two requests, each in one forward."""
    (tmp_path / "golden").mkdir()
    recorder = recorder_of(tmp_path / "golden")
    for call in range(3):
        recorder.record("pta", "x", torch.full((2, 3), float(call), dtype=torch.bfloat16), None, None, "", None, "g")
    for name, tokens in (("a", TOKENS), ("b", [7, *TOKENS[1:]])):
        with Rows(name, range(10), tokens):
            values = (WHOLE + 100 * (name == "b"))[None]
            recorder.record("pta", "rows", values, None, None, "", None, "g")
            for turn in range(2):
                recorder.record("pta", "twice", values + turn, None, None, "", None, "g")
    recorder.record("acl", "only actual", torch.zeros(1), None, None, "", None, "g")
    recorder.close()
    return tmp_path / "golden"


@pytest.fixture
def actual(tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A process whose modules go on with golden's values, and the folder of its labels."""
    (tmp_path / "actual").mkdir()
    recorder = recorder_of(tmp_path / "actual")
    for name, value in (("_on", True), ("_local", True), ("_recorder", recorder)):
        monkeypatch.setattr(api, name, value)
    monkeypatch.setenv(GOLDEN, str(golden))
    substitution.cache_clear()
    yield tmp_path / "actual"
    recorder.close()
    substitution.cache_clear()


def recorded(folder: Path) -> list[Any]:
    assert api._recorder is not None
    api._recorder.close()
    (index,) = [read_shard(files) for files in shards_in(folder)]
    return [
        (record.data_id, record.occurrence, record.error or read_label(index, record).tolist())
        for record in index.records
    ]


def test_calls_pair_by_their_number(actual: Path) -> None:
    for call in range(3):
        own = torch.full((2, 3), 9.0)
        value = label_and_replace("here", "acl", "x", own)
        assert value.dtype == torch.float32 and torch.equal(value, torch.full((2, 3), float(call)))
        value += 1  # an engine may write into it: golden's stays as it is
    assert label_and_replace("here", "acl", "x", torch.zeros(2, 3)) is None, "golden has no fourth call"
    assert label_and_replace("here", "pta", "x", torch.zeros(2, 3)) is None
    found = recorded(actual)
    assert [each[:2] for each in found] == [("x", 0), ("x", 1), ("x", 2), ("x", 3), ("x", 0)]
    assert all(each[2] == [[9.0] * 3] * 2 for each in found[:3]), "what the module computed is recorded, not golden's"
    assert "golden has no call 3" in found[3][2]


def test_rows_pair_by_tokens_and_positions(actual: Path) -> None:
    """Chunks and batches in any order; the request of the same tokens counts, whatever its name is."""
    with Rows(["z", "z", "b", "b"], [4, 5, 0, 1], [14, 15, 7, 11], prompts={"z": TOKENS}):
        value = label_and_replace("here", "acl", "rows", torch.zeros(4, 4))
    assert torch.equal(value, torch.cat([WHOLE[4:6], WHOLE[0:2] + 100]))
    with Rows("a", [9], [19]):
        assert torch.equal(label_and_replace("here", "acl", "rows", torch.zeros(1, 2, 2)).flatten(1), WHOLE[9:])


def test_rows_of_several_calls_in_one_forward_are_not_taken_for_each_other(actual: Path) -> None:
    with Rows("a", [9], [19]):
        assert label_and_replace("here", "acl", "twice", torch.zeros(1, 4)) is None
    assert "several times in one forward" in recorded(actual)[0][2]


def test_rows_of_a_slice(actual: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with Rows("a", [3, 2], [13, 12]):
        value = label_and_replace("here", "acl", "rows", torch.zeros(2, 2), Shard(-1, ranks=[0, 1]))
    assert torch.equal(value, WHOLE[[3, 2], 2:])


@pytest.mark.parametrize(
    ("rows", "shape", "words"),
    [
        (("c", [0], [99]), (1, 4), "no request with the tokens"),
        (("a", [10], [20]), (1, 4), "no row of request 'a', position 10"),
        (("a", [0], [10]), (1, 3), "no layout tells the part"),
        (("a", [0, 1], [10, 11]), (3, 4), "do not carry its 2 rows"),
    ],
)
def test_rows_that_golden_has_not_fail(actual: Path, rows: Any, shape: Any, words: str) -> None:
    with Rows(*rows):
        assert label_and_replace("here", "acl", "rows", torch.zeros(shape)) is None
    ((name, _, error),) = recorded(actual)
    assert name == "rows" and words in error


def test_what_golden_has_not_is_recorded_as_it_is(actual: Path) -> None:
    assert label_and_replace("here", "acl", "only actual", torch.ones(1)) is None
    api.set_label("acl", "by hand", torch.ones(1))
    api.set_label("pta", "by hand", torch.ones(1))
    found = recorded(actual)
    assert found[0] == ("only actual", 0, [1.0])
    assert "set_label gets no value of golden's" in found[1][2] and found[2] == ("by hand", 0, [1.0])


def test_injected_labels_alone_are_replaced(actual: Path, golden: Path) -> None:
    values = Substitution(GoldenShards(golden), frozenset({"x"}))
    assert values.wants("x") and not values.wants("rows") and not values.takes_input("x")
    assert Substitution(GoldenShards(golden), frozenset({"m.input.1"})).takes_input("m")
    assert torch.equal(values.value("x", torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize("names", ["", "x,nothing"])
def test_values_that_cannot_be_had_leave_the_model_alone(
    actual: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], names: str
) -> None:
    """No golden run, or no such label: nothing is replaced, and no label counts as computed from golden's values."""
    if names:
        monkeypatch.setenv(INJECT, names)
    else:
        monkeypatch.setenv(GOLDEN, "/nowhere")
    substitution.cache_clear()
    monkeypatch.setattr(messages, "_printed", set())
    assert label_and_replace("here", "acl", "x", torch.zeros(2, 3)) is None
    assert "golden's values cannot be used" in capsys.readouterr().err
    assert "cannot be read" in recorded(actual)[0][2]


def test_tokens_follow_golden(golden: Path) -> None:
    values = Substitution(GoldenShards(golden), None)
    assert values.next_tokens(["a", "q", "a"], [3, 0, 9], [13, 7, 19], {}) == [14, 11, None]
    assert values.next_tokens(["a"], [3], [12], {}) == [None], "it has left golden's text"
    prompts = {"q": [7, 11], "r": [10, 11]}
    requests = [values._golden._matching(name, dict(enumerate(prompts[name])) | {3: 13}) for name in prompts]
    assert [each and each.name for each in requests] == ["b", "a"], "the prompt tells texts apart that go on alike"


def test_damaged_values_are_not_used(actual: Path, golden: Path) -> None:
    (index,) = [read_shard(files) for files in shards_in(golden)]
    record = next(each for each in index.records if each.data_id == "rows")
    with index.path(record).open("r+b") as file:
        file.seek(record.offset or 0)
        file.write(b"\1\2\3\4")
    with Rows("a", [1], [11]):
        assert label_and_replace("here", "acl", "rows", torch.zeros(1, 4)) is None
    assert "were damaged" in recorded(actual)[0][2]


@pytest.mark.parametrize("world", [1, 2])
def test_golden_in_parts_serves_its_own_ranks(tmp_path: Path, world: int) -> None:
    for rank in range(world):
        recorder = recorder_of(tmp_path, rank, 2)
        recorder.record("pta", "x", np.full((2, 2), rank, np.float32), None, None, "", None, "g")
        recorder.close()
    shards = GoldenShards(tmp_path)
    assert shards.is_whole == (world == 1)
    assert shards.call(0, "x", 0, 1).tolist() == [[float(world - 1)] * 2] * 2, "of golden on one rank all take it"
    if world == 2:
        with pytest.raises(LabelError, match="lies on 2 ranks"):
            shards.call(0, "x", 0, 2)


def test_no_golden_label_is_told(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path)
    recorder.record("acl", "x", np.zeros(2), None, None, "", None, "g")
    recorder.close()
    with pytest.raises(LabelError, match="no golden label"):
        GoldenShards(tmp_path)
