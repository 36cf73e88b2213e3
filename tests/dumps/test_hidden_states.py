"""Files of vLLM's hidden-states connector, as its `_write_tensors` saves them, beside their lock files."""

from pathlib import Path

import pytest

from tests.dumps.atb_writer import values
from tests.dumps.samples import by_name, read, reasons, tensors

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")


def write(folder: Path, request: str, states: object, tokens: object) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{request}.safetensors"
    safetensors.save_file({"hidden_states": states, "token_ids": tokens}, file)
    Path(f"{file}.lock").touch()
    return file


def test_each_layer_of_each_request_is_a_label_with_rows(tmp_path: Path) -> None:
    states = torch.arange(24.0).reshape(3, 2, 4)
    write(tmp_path / "d", "0-9440a6f6", states, torch.tensor([5, 6, 7]))
    write(tmp_path / "d", "1-9440a6f7", states[:2].bfloat16(), torch.tensor([5, 8]))
    index = read(tmp_path / "d")
    assert index.tool == "vLLM's hidden states" and len(index.indices) == 1 and "--map" in index.notes[0]
    (rank,) = index.indices
    assert [(each.data_id, each.occurrence) for each in rank.records] == [
        (f"hidden_states.{layer}", request) for request in (0, 1) for layer in (0, 1)
    ]
    for record in rank.records:
        table, tensor = rank.rows[record.rows], rank.dumped[record.seq]
        request, layer = record.occurrence, int(record.data_id[-1])
        assert table.requests == {0: (0, ("0-9440a6f6", "1-9440a6f7")[request])}
        assert table.numbers.tolist() == [[0, place, (5, (6, 8)[request], 7)[place]] for place in range(3 - request)]
        if request == 0:
            assert values(tensor).tolist() == states[:, layer].tolist()


def test_one_layer_stays_in_its_file(tmp_path: Path) -> None:
    file = write(tmp_path / "d", "a", torch.ones(2, 1, 4), torch.tensor([5, 6]))
    tensor = by_name(read(tmp_path / "d"))["hidden_states.0"]
    assert tensor.path == str(file) and tensor.shape == (2, 4)
    assert by_name(read(file))["hidden_states.0"].shape == (2, 4)


@pytest.mark.parametrize("tokens", [[], [-1, 5], [2**40, 5], [5]])
def test_tokens_that_are_none_name_no_rows(tmp_path: Path, tokens: list[int]) -> None:
    write(tmp_path / "d", "a", torch.ones(2, 1, 4), torch.tensor(tokens, dtype=torch.int64))
    (rank,) = read(tmp_path / "d").indices
    assert [each.shape for each in (rank.dumped[0],) if hasattr(each, "shape")] == [(2, 4)]
    assert not rank.rows and [record.rows for record in rank.records] == [-1]


def test_states_of_another_shape_are_labels_without_rows(tmp_path: Path) -> None:
    write(tmp_path / "d", "a", torch.tensor(1.0), torch.tensor([5]))
    (rank,) = read(tmp_path / "d").indices
    assert [(record.data_id, record.rows) for record in rank.records] == [("hidden_states", -1)]


def test_damaged_files_are_named_and_others_are_plain_tensors(tmp_path: Path) -> None:
    file = write(tmp_path / "d", "a", torch.ones(2, 2, 4), torch.tensor([5, 6]))
    write(tmp_path / "d", "b", torch.ones(2, 2, 4), torch.tensor([5, 6]))
    file.write_bytes(file.read_bytes()[:-40])
    assert any("truncated" in each for each in reasons(read(tmp_path / "d")).values())
    file.write_bytes(file.read_bytes()[:100])
    index = read(tmp_path / "d")
    assert list(reasons(index)) == ["a"] and "is truncated within its header" in reasons(index)["a"]
    assert {record.data_id for _, record, _ in tensors(index)} == {"a", "hidden_states.0", "hidden_states.1"}
    plain = tmp_path / "plain"
    plain.mkdir()
    safetensors.save_file({"hidden_states": torch.ones(2), "other": torch.ones(2)}, plain / "a.safetensors")
    assert read(plain).tool == "tensor files"


def test_files_that_are_refused_or_hold_other_tensors_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write(folder, "a", torch.ones(2, 2, 4), torch.tensor([5, 6]))
    safetensors.save_file({"weight": torch.ones(2)}, folder / "model.safetensors")
    (folder / "outside.safetensors").symlink_to(write(tmp_path / "e", "b", torch.ones(2, 2, 4), torch.tensor([5, 6])))
    index = read(folder)
    assert list(reasons(index)) == ["outside"] and "leads outside" in reasons(index)["outside"]
    assert any(note.startswith("model.safetensors is left out") for note in index.notes)
