"""The replaced operation, layer and model on 4 ranks: every dump is found, is right, and shows the fault first."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_reader import read_label
from tests.examples.op_layer_model_ranks import TURNS, Ranks, Round, execution_folder, find, read_strictly, run_rounds

pytestmark = pytest.mark.model

RANKS, LAYERS, LAYER, RANK = 4, 3, 1, 2
KERNELS = ("attn.scores", "attn.softmax", "attn.values")
OPERATIONS = (
    *("input_norm", "attn.q", "attn.k", "attn.v", *KERNELS, "attn.context", "attn.out"),
    *("attn.residual", "post_norm", "mlp.act", "mlp.out"),
)
LOW = {"op": KERNELS, "layer": OPERATIONS, "model": (*OPERATIONS, "out")}
HIGH = {"op": ("attn.q", "attn.k", "attn.v", "attn.context"), "layer": ("in", "out"), "model": ()}
SLICED = {"attn.q", "attn.k", "attn.v", *KERNELS, "attn.context", "mlp.act"}
FAULTY = f"--fault shifted-head --layer {LAYER} --rank {RANK}"
ROUNDS = {
    ("op", "A"): "--granularity op",
    ("op", "C"): "--granularity op --level low",
    ("layer", "B"): "--granularity layer",
    ("model", "C"): "--granularity model",
    ("model", "D"): "--granularity model --dtype bfloat16 --level low",
    ("op", "D"): f"--granularity op {FAULTY}",
    ("layer", "C"): f"--granularity layer {FAULTY}",
    ("model", "A"): f"--granularity model {FAULTY}",
    ("model", "B"): f"--granularity model --fault scale --layer {LAYER}",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    rounds = [Round(f"{options} --layers {LAYERS}", generation) for (_, generation), options in ROUNDS.items()]
    return run_rounds(tmp_path_factory.mktemp("op_layer_model"), RANKS, rounds)


def labels(ran: Ranks, round_of: tuple[str, str], rank: int, side: str) -> list[LabelRecord]:
    first = TURNS * list(ROUNDS).index(round_of)
    records = ran.shards[rank].records
    return [record for record in records if record.side == side and record.task in range(first, first + TURNS)]


def dumped(ran: Ranks, round_of: tuple[str, str], rank: int, label: LabelRecord) -> npt.NDArray[np.float32]:
    generation, number = round_of[1], list(ROUNDS).index(round_of)
    out = Round("", generation).dumps(ran.folder, number, rank)
    execution = label.task - TURNS * number
    folder = execution_folder(out, generation, pid=ran.pids[rank], device=rank, execution=execution, task=label.task)
    return read_strictly(find(folder, label.tensor_path))


def low_errors(ran: Ranks, round_of: tuple[str, str], rank: int) -> Iterator[tuple[LabelRecord, float]]:
    """Yield, in golden order, each low-level label of a rank with the relative L2 of what the library dumped."""
    named = {(label.task, label.data_id): label for label in labels(ran, round_of, rank, "acl") if label.tensor_path}
    for record in labels(ran, round_of, rank, "pta"):
        if (record.task, record.data_id) not in named:
            continue
        golden = read_label(ran.shards[rank], record)
        if record.dtype == "bfloat16":
            golden = (golden.astype(np.uint32) << 16).view(np.float32)
        actual = dumped(ran, round_of, rank, named[record.task, record.data_id])
        differ = [dim for dim in range(golden.ndim) if golden.shape[dim] != actual.shape[dim]]
        assert bool(differ) == (record.data_id.split(".", 2)[2] in SLICED), record.data_id
        for dim in differ:
            golden = np.array_split(golden, RANKS, axis=dim)[rank]
        assert golden.shape == actual.shape
        yield record, float(np.linalg.norm(golden - actual) / np.linalg.norm(golden))


@pytest.mark.parametrize("round_of", ROUNDS)
def test_labels_of_both_sides(ran: Ranks, round_of: tuple[str, str]) -> None:
    granularity, high = round_of[0], "low" not in ROUNDS[round_of]
    names = {*LOW[granularity], *(HIGH[granularity] if high else ())}
    expected = {f"layers.{layer}.{name}" for layer in range(LAYERS) for name in names}
    for rank in range(RANKS):
        for side in ("pta", "acl"):
            records = labels(ran, round_of, rank, side)
            assert not any(record.error for record in records)
            found = [(record.task, record.data_id) for record in records]
            assert len(found) == len(set(found)), "nothing is labelled twice"
            of_model = {data_id for _, data_id in found} - expected
            if granularity == "model" and high:
                generated = {data_id for data_id in of_model if data_id.startswith("data_")}
                assert len(generated) == TURNS
                assert of_model - generated == {"model.in", "model.out"}
            else:
                assert not of_model
            assert expected <= {data_id for _, data_id in found}
            low = {record.data_id for record in records if record.tensor_path}
            inside = {f"layers.{layer}.{name}" for layer in range(LAYERS) for name in LOW[granularity]}
            assert low == (inside if side == "acl" else set())


@pytest.mark.parametrize("round_of", [round_of for round_of in ROUNDS if "fault" not in ROUNDS[round_of]])
def test_healthy_dumps_are_right(ran: Ranks, round_of: tuple[str, str]) -> None:
    limit = 3e-2 if "bfloat16" in ROUNDS[round_of] else 1e-5
    for rank in range(RANKS):
        errors = list(low_errors(ran, round_of, rank))
        assert len(errors) == TURNS * LAYERS * len(LOW[round_of[0]])
        for label, error in errors:
            assert error < limit, label


@pytest.mark.parametrize("round_of", [round_of for round_of in ROUNDS if "fault" in ROUNDS[round_of]])
def test_fault_shows_first_at_the_third_kernel(ran: Ranks, round_of: tuple[str, str]) -> None:
    everywhere = "--rank" not in ROUNDS[round_of]
    for rank in range(RANKS):
        wrong = [label for label, error in low_errors(ran, round_of, rank) if error > 1e-3]
        if everywhere or rank == RANK:
            assert wrong[0].data_id == f"layers.{LAYER}.attn.softmax"
            assert {label.task for label in wrong if label.data_id == wrong[0].data_id} == {
                label.task for label in labels(ran, round_of, rank, "pta")
            }
        elif round_of[0] == "op":
            assert not wrong, "an operation is not summed up over the ranks"
        else:
            assert wrong[0].data_id == f"layers.{LAYER}.attn.out"
        if round_of[0] != "model":  # each layer gets the golden input
            assert {label.data_id.split(".")[1] for label in wrong} <= {str(LAYER)}
