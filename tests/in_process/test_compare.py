"""`aclcmp.compare` and `assert_matches`: of tensors, containers and folders, and of what is none of them."""

import signal
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aclcmp
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline import diagnose
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.pipeline.stored_reports import judge_again

X = np.linspace(-1.0, 1.0, 64, dtype=np.float32).reshape(8, 8)


def statuses(found: aclcmp.Comparison) -> dict[str, str]:
    return {label.label: label.status for label in found.labels}


def test_two_arrays() -> None:
    assert aclcmp.compare(X, X.copy()).verdict == "match"
    wrong = X.copy()
    wrong[3] *= 2
    found = aclcmp.compare(X, wrong)
    first = found.first_divergence
    assert not found and first is not None
    assert first.label == "tensor" and first.call_site.startswith(__file__) and "(row 3)" in first.reason


def test_a_drift_passes_and_another_shape_does_not() -> None:
    drifted = X * np.float32(1 + 1e-4)
    assert statuses(aclcmp.compare(X, drifted)) == {"tensor": "drift"}
    aclcmp.assert_matches(X, drifted)
    with pytest.raises(AssertionError, match="mismatch"):
        aclcmp.assert_matches(X, X[:3])


def test_assert_matches_shows_the_table_and_where_it_begins() -> None:
    with pytest.raises(AssertionError) as caught:
        aclcmp.assert_matches({"a": X, "b": X, "c": X}, {"a": X, "b": X + 1, "c": X})
    text = str(caught.value)
    assert text.startswith("actual does not match golden: diverged\n")
    assert "rel L2" in text and "First divergence: b" in text and "\x1b" not in text


def test_nested_containers() -> None:
    golden = {"layers": [{"w": X, "b": X[0]}, (X, 2)], "none": None, 3: np.float64(0.5)}
    actual: OrderedDict[Any, Any] = OrderedDict(layers=({"b": X[0], "w": X}, [X, 2]))
    actual[3] = 0.5  # type of the key: as golden's
    found = aclcmp.compare(golden, actual)
    assert found and list(statuses(found)) == ["layers.0.w", "layers.0.b", "layers.1.0", "layers.1.1", "3"]


def test_names_of_one_side_are_missing() -> None:
    found = aclcmp.compare({"a": X, "b": X, "n": None}, {"a": X, "c": X, "n": X})
    assert statuses(found) == {"a": "match", "b": "missing", "c": "missing", "n": "missing"}
    assert found.verdict == "incomplete"
    with pytest.raises(AssertionError, match="incomplete"):
        aclcmp.assert_matches({"a": X, "b": X}, {"a": X})
    assert aclcmp.compare({}, {}).verdict == "incomplete"


def test_values_that_are_no_tensors_fail() -> None:
    found = aclcmp.compare({"a": X, "s": "text", "o": object()}, {"a": X, "s": "text", "o": object()})
    assert statuses(found) == {"a": "match", "s": "failed", "o": "failed"}
    assert "str" in found.labels[1].reason


def test_names_that_cannot_be_labels_fail() -> None:
    found = aclcmp.compare({"": X, "y" * 2000: X}, {"": X, "y" * 2000: X})
    assert set(statuses(found).values()) == {"failed"} and found.verdict == "incomplete"


@pytest.mark.parametrize(
    ("golden", "actual", "sentence"),
    [
        (X, {"a": X}, "golden is a ndarray and actual a dict: give two tensors"),
        ("folder", X, "golden is a str and actual a ndarray"),
        ({X.dtype}, {X.dtype}, "golden is a set: give two tensors"),
        ({"a.b": X, "a": {"b": X}}, {"a.b": X}, "golden has two tensors that are called 'a.b'"),
        ("does not exist", "neither", "does not exist"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(golden: Any, actual: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        aclcmp.compare(golden, actual)


def test_a_container_within_itself_is_refused() -> None:
    golden: dict[str, Any] = {"a": X}
    golden["self"] = golden
    with pytest.raises(UsageError, match="a container within itself"):
        aclcmp.compare(golden, {"a": X})


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    aclcmp.compare(X, X)
    assert not list(tmp_path.iterdir())
    assert not aclcmp.record(tmp_path / "run").is_launched


def test_folders_of_another_tool(tmp_path: Path) -> None:
    for side, values in (("golden", X), ("actual", X + 1)):
        (tmp_path / side).mkdir()
        np.save(tmp_path / side / "out.npy", values)
    found = aclcmp.compare(tmp_path / "golden", str(tmp_path / "actual"))
    assert found.first_divergence is not None and found.first_divergence.label == "out"


def test_thousands_of_tensors() -> None:
    golden = {f"layers.{number}.w": X[0] for number in range(2_000)}
    found = aclcmp.compare(golden, {**golden, "layers.1777.w": X[1]})
    assert found.first_divergence is not None and found.first_divergence.label == "layers.1777.w"
    assert len(found.labels) == 2_000 and len(str(found).splitlines()) < 40 and len(found._repr_html_()) < 40_000


def test_compare_inside_a_block_is_apart_from_it() -> None:
    with aclcmp.record() as run:
        assert aclcmp.compare(X, X)
        aclcmp.set_label("golden", "x", X)
        aclcmp.set_label("actual", "x", X)
    assert statuses(run.compare()) == {"x": "match"}


def test_each_tensor_is_judged_by_itself(tmp_path: Path) -> None:
    golden = {"narrow": X.astype(np.float16), "layers.0.w": X, "layers.1.w": X}
    found = aclcmp.compare(golden, {**golden, "layers.0.w": X * np.float32(1.002), "layers.1.w": X * np.float32(1.002)})
    assert [(label.status, label.origin) for label in found.labels[1:]] == [("diverged", "own")] * 2
    folder = found.save(tmp_path / "report")
    again, _ = judge_again(folder, JudgingOptions(Policy()), save=False)
    assert [label.status.value for label in again.judgement.labels] == ["match", "diverged", "diverged"]


def ctrl_c(*_: Any, **__: Any) -> Any:
    signal.raise_signal(signal.SIGINT)


def leave_out(self: LocalComparer, works: Any, *_: Any) -> dict[Any, Any]:
    """Return nothing, as after Ctrl-C."""
    return {}


@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [
        (LocalComparer, "compare_pairs", leave_out),
        (LocalComparer, "count_ties", ctrl_c),
        (LocalComparer, "look_again", leave_out),
        (diagnose, "pattern_of", ctrl_c),
    ],
)
def test_ctrl_c_passes_on(owner: object, name: str, instead: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the process of the user a comparison has no answer then, where the command tells what it has."""
    logits = np.eye(8, dtype=np.float32)
    golden = {"logits": logits, "ids": np.arange(8)}
    actual = {"logits": logits + np.float32(1e-6), "ids": np.arange(8)[::-1].copy()}
    assert not aclcmp.compare(golden, actual)
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises(KeyboardInterrupt):
        aclcmp.compare(golden, actual)


def test_the_latest_run_of_the_command_stays_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aclcmp-runs" / "a").mkdir(parents=True)
    latest = tmp_path / "aclcmp-runs" / "latest"
    latest.symlink_to("a")
    assert aclcmp.compare(X, X)
    with aclcmp.record():
        pass
    assert latest.resolve() == tmp_path / "aclcmp-runs" / "a"


def test_advice_fits_tensors() -> None:
    assert str(aclcmp.compare({}, {})) == "Nothing was compared: neither side holds a label."
    for actual in ({"y": X}, {"y": X, "z": X}):
        text = str(aclcmp.compare({"x": X, "z": X} if "z" in actual else {"x": X}, actual))
        assert "suggest" not in text and "aclcmp compare" not in text
    with aclcmp.record() as run:
        pass
    assert "the recording holds no label" in str(run.compare())
