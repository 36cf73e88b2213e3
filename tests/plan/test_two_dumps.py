"""Two dumps of ranks beside each other: damaged files on either side, fused slices on both, replicas in pairs."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.errors import ExitCode
from tests.dumped_ranks import Tensors, dump
from tests.models.comparing import judge_runs, layouts, reasons, statuses

LAYERS = 4


def draw_values(seed: int, *shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("side", ["golden", "actual"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_file_fails_its_label_alone(tmp_path: Path, side: str, damage: str) -> None:
    for folder in ("golden", "actual"):
        (tmp_path / folder).mkdir()
        for number, name in enumerate("xyz"):
            np.save(tmp_path / folder / f"{name}.npy", draw_values(number, 4, 6))
    path = tmp_path / side / "y.npy"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-40], "empty": b"", "other": b"no array" * 9}[damage])
    judgement = judge_runs(tmp_path / "golden", tmp_path / "actual")
    assert statuses(judgement) == {"x": Status.MATCH, "y": Status.FAILED, "z": Status.MATCH}
    assert judgement.exit_code is ExitCode.INCOMPLETE
    assert all("y.npy" in reason for reason in reasons(judgement, "y"))


@pytest.mark.parametrize(("golden_ranks", "actual_ranks"), [(2, 4), (4, 2), (4, 4), (1, 4)])
@pytest.mark.parametrize("wrong", [None, 2])
def test_fused_slices_on_both_sides(tmp_path: Path, golden_ranks: int, actual_ranks: int, wrong: int | None) -> None:
    """Each rank holds its slices of gate and up side by side: on other numbers of ranks that is another order."""

    def ranks(count: int, fault: int | None) -> list[Tensors]:
        found: list[Tensors] = []
        for rank in range(count):
            tensors = {}
            for layer in range(LAYERS):
                halves = [np.split(draw_values(2 * layer + half, 5, 16), count, 1)[rank] for half in range(2)]
                if fault == layer and rank == 1:
                    halves[1] = halves[1] * 2
                tensors[f"{layer}.gate_up"] = np.concatenate(halves, 1)
            found.append(tensors)
        return found

    golden, actual = dump(tmp_path / "g", *ranks(golden_ranks, None)), dump(tmp_path / "a", *ranks(actual_ranks, wrong))
    judgement = judge_runs(golden, actual)
    expected = {f"{layer}.gate_up": Status.MATCH for layer in range(LAYERS)}
    assert statuses(judgement) == expected | ({} if wrong is None else {f"{wrong}.gate_up": Status.DIVERGED})
    if golden_ranks != actual_ranks:
        assert all("parts=" in words for words in layouts(judgement)["0.gate_up"])


@pytest.mark.parametrize("order", ["neighbours", "every second"])
def test_pairs_of_golden_replicas_serve_a_rank_each(tmp_path: Path, order: str) -> None:
    """Of 4 golden ranks two hold one head and two the other: each pair is alike, the two pairs are not."""
    heads = [draw_values(head, LAYERS, 5, 8) for head in range(2)]
    of_rank = [rank // 2 if order == "neighbours" else rank % 2 for rank in range(4)]

    def golden() -> list[Tensors]:
        return [{f"{layer}.k": heads[head][layer].copy() for layer in range(LAYERS)} for head in of_rank]

    actual = dump(tmp_path / "a", *({f"{layer}.k": head[layer] for layer in range(LAYERS)} for head in heads))
    assert judge_runs(dump(tmp_path / "g", *golden()), actual).exit_code is ExitCode.MATCH
    wrong = golden()
    wrong[3]["1.k"][0] += 1
    judgement = judge_runs(dump(tmp_path / "wrong", *wrong), actual)
    assert [(each.key.label, each.odd) for each in judgement.replicas] == [("1.k", (3,))]
