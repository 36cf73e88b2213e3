"""Two runs made apart, at other world sizes: one golden process against tensor-parallel ranks, without annotations."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.run.directory import RunDir
from tests.cli.conftest import Command, assert_one_line
from tests.processes import PATIENCE
from tests.recorded import read_report, record_run

SCRIPT = """
import os, sys
import numpy as np
from aclcmp import set_label, set_task_id

side, fault = sys.argv[1], "fault" in sys.argv
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
for task in range(2):
    set_task_id()
    for layer in range(3):
        whole = np.random.default_rng(10 * task + layer).standard_normal((12, 8, 64)).astype(np.float32)
        local = np.split(whole, world, axis=2)[rank].copy()
        if fault and rank == 5 and layer == 1:
            local = local[:, :, ::-1]
        set_label(side, f"layers.{layer}.act", local)
        set_label(side, f"layers.{layer}.out", whole.sum(2))
"""


def record(folder: Path, script: Path, *arguments: str, ranks: int = 1) -> None:
    """Make a run directory as the launcher does, without its Ray: the ranks here need not meet each other."""
    run = RunDir.create(folder)
    for rank in range(ranks):
        told = {
            "RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "ACLCMP_RUN_ID": "run",
            "ACLCMP_SHARD_DIR": str(run.shards),
        }
        subprocess.run([sys.executable, script, *arguments], env=os.environ | told, check=True, timeout=PATIENCE)
    record_run(run, str(script), ranks)


@pytest.mark.ray
def test_runs_of_one_two_and_eight_ranks(aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    done = aclcmp("--exec", "python s.py acl", "--ranks", "8", "--no-compare", "--output", "eight")
    assert done.code == 0, done
    for name, sides, ranks in (("one", ["pta"], 1), ("two", ["golden"], 2), ("bad", ["acl", "fault"], 8)):
        record(tmp_path / name, tmp_path / "s.py", *sides, ranks=ranks)
    done = aclcmp("compare", "one", "eight", "--output", "good")
    assert done.code == 0 and "All match, bit for bit: 12 labels on 8 ranks" in done.out, done
    assert f"golden: {tmp_path / 'one'}, 1 rank" in done.out and f"actual: {tmp_path / 'eight'}, 8 ranks" in done.out
    done = aclcmp("compare", "two", "bad", "--output", "out")
    assert done.code == 1, done
    first = read_report(tmp_path / "out")["first_divergence"]
    assert (first["label"], first["task"], first["ranks"]) == ("layers.1.act", 0, [5])
    files = ["report.csv", "report.h5", "report.json", "report.xml"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files


def test_a_folder_of_arrays_is_a_side(quick_aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT.replace("range(2)", "range(1)"))
    record(tmp_path / "actual", tmp_path / "s.py", "acl", "fault", ranks=8)
    (tmp_path / "dump").mkdir()
    for layer in range(3):
        whole = np.random.default_rng(layer).standard_normal((12, 8, 64)).astype(np.float32)
        np.save(tmp_path / "dump" / f"layers.{layer}.act.npy", np.asfortranarray(whole))
        np.save(tmp_path / "dump" / f"layers.{layer}.out.npy", whole.sum(2))
    done = quick_aclcmp("compare", "dump", "actual", "--output", "out")
    assert done.code == 1 and "tensor files, 1 rank" in done.out, done
    found = read_report(tmp_path / "out")
    assert found["coverage"]["complete"] and {label["level"] for label in found["labels"]} == {"high"}
    assert (found["first_divergence"]["label"], found["first_divergence"]["ranks"]) == ("layers.1.act", [5])
    done = quick_aclcmp("compare", "actual", "dump", "--output", "back")  # the whole is put together from eight slices
    assert done.code == 1 and read_report(tmp_path / "back")["first_divergence"]["label"] == "layers.1.act", done


def test_passes_of_an_engine_are_sides(quick_aclcmp: Command, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.dumps.sglang_writer import dump_passes

    dump_passes(tmp_path / "golden" / "TP0_PP0_Rank0_pid7")
    dump_passes(tmp_path / "same" / "TP0_PP0_Rank0_pid8")
    dump_passes(tmp_path / "wrong" / "TP0_PP0_Rank0_pid9", wrong=0.5)
    done = quick_aclcmp("compare", "golden", "same", "--output", "a")
    assert done.code == 0 and "SGLang's passes, 1 rank" in done.out, done
    done = quick_aclcmp("compare", "golden", "wrong", "--output", "b")
    assert done.code == 1, done
    first = read_report(tmp_path / "b")["first_divergence"]
    assert (first["task"], first["label"], first["origin"]) == (0, "model.layers.1", "own")


def test_passes_of_other_batches_pair_by_request_and_position(quick_aclcmp: Command, tmp_path: Path) -> None:
    """One side computes a prompt at once, the other in chunks, together with another request, behind its prefix."""
    pytest.importorskip("torch")
    from tests.dumps.sglang_writer import BATCH, dump_batches

    golden = [[(0, [5, 6, 7, 8])], [(4, [1])], [(0, [5, 6, 9])], [(3, [2])], [(4, [3])]]
    actual = [[(0, [5, 6])], [(2, [7, 8])], [(2, [9])], [(4, [1]), (3, [2])], [(4, [3])]]
    dump_batches(tmp_path / "golden" / "TP0_PP0_Rank0_pid7", golden)
    dump_batches(tmp_path / "actual" / "TP0_PP0_Rank0_pid8", actual, wrong=0.5)
    done = quick_aclcmp("compare", "golden", "actual", "--output", "out")
    assert done.code == 1, done
    found = read_report(tmp_path / "out")
    labels = {each["label"]: each for each in found["labels"]}
    assert set(labels) == {*BATCH, "model.layers.0", "model", "logits_processor"}
    layer = labels["model.layers.0"]["ranks"]["0"]
    assert layer["status"] == "diverged" and "position 3, token 8" in str(labels["model.layers.0"])
    assert all(labels[name]["ranks"]["0"]["status"] == "match" for name in BATCH)
    told = " ".join(found["notes"])
    assert "positions 0 to 1 were taken from a cache" in told


def test_a_side_without_rows_pairs_by_passes(quick_aclcmp: Command, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tests.dumps.sglang_writer import dump_batches

    dump_batches(tmp_path / "actual" / "TP0_PP0_Rank0_pid8", [[(0, [5, 6])], [(2, [7])]])
    for number, rows in enumerate(([[5, 10, 15, 20], [16, 32, 48, 64]], [[27, 54, 81, 108]])):
        step = tmp_path / "golden" / f"step{number}"
        step.mkdir(parents=True)
        torch.save({"model.layers.0": torch.tensor(rows, dtype=torch.float32)}, step / "x.pt")
    done = quick_aclcmp("compare", "golden", "actual", "--output", "out")
    assert done.code == 4, done
    found = read_report(tmp_path / "out")
    layers = [each for each in found["labels"] if each["label"] == "model.layers.0"]
    assert [(each["task"], each["ranks"]["0"]["status"]) for each in layers] == [(0, "match"), (1, "match")]


def test_ids_that_differ_are_mapped(quick_aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "g.py").write_text(SCRIPT)
    (tmp_path / "a.py").write_text(SCRIPT.replace("layers.{layer}.act", "transformer.h.{layer}.activation"))
    record(tmp_path / "golden", tmp_path / "g.py", "pta")
    record(tmp_path / "actual", tmp_path / "a.py", "acl", ranks=2)
    proposal = quick_aclcmp("compare", "golden", "actual", "--suggest-map")
    assert proposal.code == 0 and "layers.*.act -> transformer.h.*.activation" in proposal.out.splitlines()
    (tmp_path / "map.txt").write_text(proposal.out + "nothing.* -> like.it.*\n")
    done = quick_aclcmp("compare", "golden", "actual", "--map", "map.txt", "--output", "mapped")
    assert done.code == 0 and "All match" in done.out and "no label follows these rules of the map: line" in done.out
    assert {label["label"] for label in read_report(tmp_path / "mapped")["labels"]} == {
        f"layers.{layer}.{what}" for layer in range(3) for what in ("act", "out")
    }


def test_ids_without_meaning_are_mapped_by_values(quick_aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SCRIPT.replace("layers.{layer}.act", "{['vv', 'uu', 'ww'][layer]}"))
    (tmp_path / "g.py").write_text(SCRIPT.replace("layers.{layer}.act", "{['kk', 'mm', 'nn'][layer]}"))
    record(tmp_path / "golden", tmp_path / "g.py", "pta")
    record(tmp_path / "actual", tmp_path / "a.py", "acl", ranks=4)
    proposal = quick_aclcmp("compare", "golden", "actual", "--suggest-map")
    assert proposal.code == 0 and not proposal.err, proposal
    assert {line for line in proposal.out.splitlines() if line[:1] != "#"} == {"", "kk -> vv", "mm -> uu", "nn -> ww"}
    assert proposal.out.count("values agree (1 of 1 label)") == 3


def test_wrong_input(quick_aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    record(tmp_path / "one", tmp_path / "s.py", "pta")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for arguments, words in (
        (("one", "missing"), "missing is not a folder"),
        (("full", "one"), "full is not a run directory"),
        (("one", "one", "--output", "full"), "is not empty"),
        (("one", "one", "--clean"), "--clean belongs to"),
        (("one", "--suggest-map"), "--map and --suggest-map belong to"),
        (("one", "one", "--map", "nowhere"), "nowhere"),
        (("one", "one", "--map", "s.py"), "s.py:2"),
    ):
        assert_one_line(quick_aclcmp("compare", *arguments), words)


@pytest.mark.ray
def test_summands_are_added(aclcmp: Command, tmp_path: Path) -> None:
    """A row-parallel projection before its all-reduce: the sum over all ranks is what golden has."""
    (tmp_path / "s.py").write_text(
        "import os, sys\n"
        "import numpy as np\n"
        "from aclcmp import Partial, set_label\n"
        "rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])\n"
        "x, w = (np.random.default_rng(seed).standard_normal((64, 64)) for seed in range(2))\n"
        "own = slice(rank * 64 // world, (rank + 1) * 64 // world)\n"
        "part = (x[:, own] @ w[own]).astype(np.float32)\n"
        "if 'fault' in sys.argv and rank == 2:\n"
        "    part *= 2\n"
        "set_label('pta', 'out', (x @ w).astype(np.float32))\n"
        "set_label('acl', 'out', part, layout=Partial())\n"
    )
    done = aclcmp("--exec", "python s.py", "--ranks", "4", "--output", "good")
    assert done.code == 0, done
    (label,) = read_report(tmp_path / "good")["labels"]
    assert list(label["ranks"]) == ["0", "1", "2", "3"]
    assert label["ranks"]["3"]["layout"] == "Partial(sum) over 4 ranks"
    done = aclcmp("--exec", "python s.py fault", "--ranks", "4", "--output", "bad")
    assert done.code == 1, done
    first = read_report(tmp_path / "bad")["first_divergence"]
    assert (first["label"], first["ranks"]) == ("out", [0, 1, 2, 3])
    assert first["why"].startswith("the sum over ranks 0, 1, 2, 3: ")
