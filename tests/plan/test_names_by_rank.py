"""Ranks that name labels for themselves: pipeline stages that count their layers from 0, on either side."""

import tempfile
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.inputs.id_map_file import read_map
from aclcmp.orchestrator.plan.id_rules import IdMap
from aclcmp.orchestrator.plan.planner import plan_two
from aclcmp.orchestrator.run.sources import open_source
from tests.dumped_ranks import Tensors, dump
from tests.models.comparing import judge_runs, statuses
from tests.recorded import record_run, write_run

TOKENS, WIDTH = 5, 8


def value(layer: int, part: str) -> npt.NDArray[np.float32]:
    return np.random.default_rng([layer, len(part)]).standard_normal((TOKENS, WIDTH)).astype(np.float32)


def whole(layers: int) -> Tensors:
    """The labels of a rank that has all layers."""
    found = {"embed": value(99, "")}
    for layer in range(layers):
        found |= {f"layers.{layer}.attn": value(layer, "attn"), f"layers.{layer}": value(layer, "")}
    return found | {"norm": value(98, "")}


def stages(sizes: list[int], ranks: int, wrong: int | None = None) -> list[Tensors]:
    """The labels of each rank: stages of so many layers, each on so many ranks that hold columns of them."""
    found: list[Tensors] = []
    for number, (begin, size) in enumerate(zip(accumulate([0, *sizes]), sizes, strict=False)):
        for rank in range(ranks):
            own = slice(rank * WIDTH // ranks, (rank + 1) * WIDTH // ranks)
            labels: Tensors = {"embed": value(99, "")} if number == 0 else {}
            for layer in range(begin, begin + size):
                name = layer - begin
                factor = np.float32(1 + (layer == wrong))
                labels[f"layers.{name}.attn"] = value(layer, "attn")[:, own]
                labels[f"layers.{name}"] = value(layer, "")[:, own] * factor
            found.append(labels | ({"norm": value(98, "")} if number == len(sizes) - 1 else {}))
    return found


def rules(sizes: list[int], ranks: int, side: str) -> str:
    """The file that names the layers of all stages but the first."""
    lines = []
    for number, begin in enumerate(accumulate(sizes[:-1]), start=1):
        of_ranks = f"rank:{number * ranks}" + (f"-{(number + 1) * ranks - 1}" if ranks > 1 else "")
        all_ranks, own = f"layers.{{n+{begin}}}**", f"{of_ranks} layers.{{n}}**"
        lines.append(f"{all_ranks} -> {own}" if side == "actual" else f"{own} -> {all_ranks}")
    return "\n".join(lines)


def written(folder: Path, text: str) -> IdMap:
    (folder / "names.map").write_text(text)
    return read_map(folder / "names.map")


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink])
@given(st.lists(st.integers(1, 3), min_size=2, max_size=4), st.sampled_from([1, 2, 4]), st.booleans(), st.data())
def test_stages_that_count_from_0(sizes: list[int], ranks: int, is_actual: bool, data: st.DataObject) -> None:
    """Beside one rank, or beside other stages that count for themselves; which layer is wrong is told."""
    wrong = data.draw(st.none() | st.integers(0, sum(sizes) - 1))
    others = data.draw(st.none() | st.just(sizes[::-1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        local = dump(folder / "local", *stages(sizes, ranks, wrong))
        other = dump(folder / "other", *(stages(others, 1) if others else [whole(sum(sizes))]))
        text = rules(sizes, ranks, "actual" if is_actual else "golden")
        if others:
            text += "\n" + rules(others, 1, "golden" if is_actual else "actual")
        golden, actual = (other, local) if is_actual else (local, other)
        judgement = judge_runs(golden, actual, written(folder, text))
    expected = dict.fromkeys(whole(sum(sizes)), Status.MATCH)
    assert statuses(judgement) == expected | ({} if wrong is None else {f"layers.{wrong}": Status.DIVERGED})
    assert judgement.exit_code is (ExitCode.MATCH if wrong is None else ExitCode.DIVERGED)


def test_one_run(tmp_path: Path) -> None:
    """Its golden labels beside its own actual ones: golden on the first rank, whole; actual by stages."""
    parts = stages([2, 2], 1)
    labels = [[("acl", name, each) for name, each in of_rank.items()] for of_rank in parts]
    labels[0] += [("pta", name, each) for name, each in whole(4).items()]
    run = write_run(tmp_path / "run", labels)
    record_run(run, "s.py", 2)
    judgement = judge_runs(run.root, run.root, written(tmp_path, rules([2, 2], 1, "actual")))
    assert statuses(judgement) == dict.fromkeys(whole(4), Status.MATCH)
    without = judge_runs(run.root, run.root)
    assert statuses(without)["layers.2"] is Status.MISSING and statuses(without)["layers.0"] is Status.DIVERGED


@pytest.mark.parametrize("side", ["golden", "actual"])
def test_names_of_ranks_come_before_other_rules(tmp_path: Path, side: str) -> None:
    """Also those that join labels: they see the names that all ranks have."""
    tensors = stages([1, 2], 1)
    for labels in tensors:
        for name in [name for name in labels if name.endswith(".attn")]:
            labels[name.replace("attn", "qk")] = np.concatenate([labels.pop(name)] * 2, -1)
    local = dump(tmp_path / "local", *tensors)
    split = whole(3)
    for name in [name for name in split if name.endswith(".attn")]:
        split |= {name.replace("attn", "q"): split[name], name.replace("attn", "k"): split.pop(name)}
    other = dump(tmp_path / "other", {name.replace("layers", "h"): each for name, each in split.items()})
    joined = ["h.*.q | h.*.k -> layers.*.qk", "h.* -> layers.*"]
    if side == "golden":
        joined = ["layers.*.qk -> h.*.q | h.*.k", "layers.* -> h.*"]
    ids = written(tmp_path, "\n".join([*joined, rules([1, 2], 1, side)]))
    judgement = judge_runs(*((local, other) if side == "golden" else (other, local)), ids)
    assert set(statuses(judgement).values()) == {Status.MATCH} and judgement.coverage.complete


def test_a_number_that_is_too_small_is_refused(tmp_path: Path) -> None:
    """Two labels would be one: the line says which."""
    golden, actual = dump(tmp_path / "g", whole(4)), dump(tmp_path / "a", *stages([2, 2], 2))
    ids = written(tmp_path, "# stages\nlayers.{n+1}** -> rank:2-3 layers.{n}**\n")
    with pytest.raises(UsageError, match=r"names\.map:2: 'layers\.1.* of rank 0 and 'layers\.0.* of rank 2 both"):
        judge_runs(golden, actual, ids)


def test_a_number_that_is_too_large_is_not_green(tmp_path: Path) -> None:
    golden, actual = dump(tmp_path / "g", whole(4)), dump(tmp_path / "a", *stages([2, 2], 1))
    judgement = judge_runs(golden, actual, written(tmp_path, "layers.{n+3}** -> rank:1 layers.{n}**"))
    found = statuses(judgement)
    assert found["layers.2"] is Status.MISSING and found["layers.3"] is Status.DIVERGED
    assert found["layers.4"] is Status.MISSING and judgement.exit_code is ExitCode.DIVERGED


def test_labels_of_some_ranks_are_dropped_and_unused_lines_told(tmp_path: Path) -> None:
    golden, actual = dump(tmp_path / "g", whole(2)), dump(tmp_path / "a", whole(2), whole(2) | {"warm.1": value(1, "")})
    ids = written(tmp_path, "- -> rank:1 warm.{n}\nlayers.{n+9} -> rank:7 layers.{n}\nx.* -> rank:0 y.*")
    assert set(statuses(judge_runs(golden, actual, ids)).values()) == {Status.MATCH}
    first, second = open_source(golden, "pta", tmp_path), open_source(actual, "acl", tmp_path)
    notes = plan_two(first.indices, second.indices, 2, ids).notes
    assert "no label follows these rules of the map: line 2, line 3" in notes, notes


@pytest.mark.parametrize(
    ("golden", "actual", "pairs"),
    [
        ("layers.{n}", "h.{n+1}", {"h.1": "layers.0", "h.10": "layers.9", "h.0": "h.0", "h.01": "h.01", "h.x": "h.x"}),
        ("l.{n+2}.e.*", "m.{n}.x.*", {"m.0.x.7": "l.2.e.7"}),
        ("h.{n+1}**", "l.{n}**", {"l.10": "h.11", "l.9.w": "h.10.w", "l.01": "l.01", "l.0": "h.1"}),
        ("**.{n+1}.w", "a.**.{n}.w", {"a.b.c.4.w": "b.c.5.w"}),
    ],
)
def test_numbers_of_all_ranks(tmp_path: Path, golden: str, actual: str, pairs: dict[str, str]) -> None:
    """A program that counts from 1 beside one that counts from 0."""
    ids = written(tmp_path, f"{golden} -> {actual}")
    assert {name: ids.golden_name_of(name) for name in pairs} == pairs
