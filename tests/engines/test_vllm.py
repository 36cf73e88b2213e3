"""vLLM against transformers on trained weights: what is right matches, and each planted fault is named.

An engine takes most of a minute to start: all rounds of `rounds.py` share one.
"""

import re
from pathlib import Path

import pytest

from tests.engines.engine_runs import add_golden, record_rounds, run
from tests.engines.rounds_text import LONG
from tests.recorded import read_report

pytestmark = pytest.mark.engine

ROUNDS = ("clean", "rope", "permuted", "stale", "shifted", "exchanged", "neighbour", "late")
SUMMARISED = ("clean-fingerprint", "permuted-fingerprint", "stale-fingerprint", "clean-stats", "permuted-stats")
OF_CACHE = ("cache", "cache-fingerprint", "zeroed", "copied", "swapped")
LABELS = 45
"""Of three layers: 14 each, the embedding, the last norm and the logits."""
WITH_CACHE = LABELS + 6


def play(engine: Path, folder: Path, model: Path, dtype: str, *rounds: str) -> Path:
    """Run rounds on three ranks, each with the golden side; return the folder of their run directories."""
    record_rounds(engine, folder, f"rounds.py {model} {folder}/rounds {dtype} {' '.join(rounds)}", 3)
    for name in rounds:
        directory = folder / "rounds" / name
        (directory / "out.txt").write_text(add_golden(engine, directory, model, 3, "rounds.py"))
    return folder / "rounds"


@pytest.fixture(scope="module")
def rounds(engine: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play(engine, tmp_path_factory.mktemp("float32"), smollm2, "float32", *ROUNDS, *SUMMARISED, *OF_CACHE)


def test_chunks_batches_steps_and_a_prefix_hit_match(rounds: Path) -> None:
    found = read_report(rounds / "clean")
    assert found["verdict"] == "match" and found["exit_code"] == 0
    assert len(found["labels"]) == LABELS and found["coverage"]["compared"] == 3 * LABELS
    for label in found["labels"]:
        assert list(label["ranks"]) == ["0", "1", "2"]
        assert all(rank["metrics"]["rel_l2"] < 1e-5 for rank in label["ranks"].values()), label["label"]
    by_name = {label["label"]: label["ranks"]["0"] for label in found["labels"]}
    computed = by_name["model.norm"]["stats"]["n"] // 576
    sampled = by_name["lm_head"]["stats"]["n"] // 49152
    assert computed > 100 and 20 <= sampled < computed, "logits are there for some rows alone"
    assert any("were taken from a cache" in note for note in found["notes"])
    assert by_name["model.layers.1.self_attn.k_proj"]["stats"]["n"] == computed * 64, "one of three key-value heads"


def test_the_tokens_of_a_greedy_engine_are_those_of_its_logits(rounds: Path) -> None:
    (tokens,) = read_report(rounds / "clean")["tokens"]
    assert tokens["ranks"] == [0, 1, 2] and tokens["counts"]["wrong"] == 0
    each = [token for request in tokens["requests"] for token in request["tokens"]]
    assert all(token["taken"] in (-1, token["actual"]) for token in each if not token["in_prompt"])
    assert any(token["in_prompt"] for token in each), "of chunks that are not the last"
    assert all(isinstance(token["golden_text"], str) for token in each)


def test_a_fault_that_changes_one_text_is_a_wrong_token_of_its_layer(rounds: Path) -> None:
    """It is planted at position 5, whose row chooses the next token; what follows has that row in its cache."""
    (tokens,) = read_report(rounds / "late")["tokens"]
    wrong = {
        request["request"]: [token for token in request["tokens"] if token["state"] == "wrong"]
        for request in tokens["requests"]
    }
    ((name, first),) = [(name, each[0]) for name, each in wrong.items() if each]
    assert first["position"] == 6 and first["taken"] == first["actual"] != first["golden"]
    assert first["moved_most_in"] == "model.layers.1.mlp"
    assert sum(each["moved"] for each in first["moved_in"]) == pytest.approx(first["shift"], rel=1e-3)
    told = (rounds / "late" / "out.txt").read_text()
    assert re.search(rf"Request {name} parts at token 6: .*: wrong; .* in model\.layers\.1\.mlp \(", told), told


@pytest.mark.parametrize(
    ("name", "label", "ranks"),
    [
        ("rope", "model.layers.0.self_attn.o_proj.input", [0, 1, 2]),
        ("permuted", "model.layers.1.self_attn.q_proj", [1]),
        ("stale", "model.layers.2.self_attn.o_proj.input", [0, 1, 2]),
        ("shifted", "model.layers.0.self_attn.o_proj.input", [0, 1, 2]),
        ("permuted-fingerprint", "model.layers.1.self_attn.q_proj", [1]),
        ("stale-fingerprint", "model.layers.2.self_attn.o_proj.input", [0, 1, 2]),
        ("permuted-stats", "model.layers.1.self_attn.o_proj.input", [1]),  # norms do not see the order within a row
        ("exchanged", "model.layers.1.self_attn.k_proj", [1]),
        ("neighbour", "model.layers.1.mlp.gate_proj", [1]),
        ("zeroed", "model.layers.2.self_attn.k_cache", [0, 1, 2]),
        ("copied", "model.layers.1.self_attn.k_cache", [0, 1, 2]),
        ("swapped", "model.layers.0.self_attn.k_cache", [0, 1, 2]),
    ],
)
def test_a_planted_fault_is_named(rounds: Path, name: str, label: str, ranks: list[int]) -> None:
    found = read_report(rounds / name)
    first = found["first_divergence"]
    assert (first["label"], first["ranks"], first["origin"]) == (label, ranks, "own")
    verdict = next(each for each in found["labels"] if each["label"] == label)["ranks"][str(ranks[0])]
    assert "position " in verdict["worst_row_name"] and verdict["worst_row_name"].startswith("request ")
    assert all(
        each["ranks"][str(rank)]["status"] == "match"
        for each in found["labels"][: [each["label"] for each in found["labels"]].index(label)]
        for rank in range(3)
    )


@pytest.mark.parametrize(("name", "basis"), [("clean-fingerprint", "row fingerprint"), ("clean-stats", "norms")])
def test_summaries_of_slices_match_a_whole_golden(rounds: Path, name: str, basis: str) -> None:
    found = read_report(rounds / name)
    assert found["verdict"] == "match" and found["coverage"]["compared"] == 3 * LABELS
    bases = [rank["stats"]["basis"] for label in found["labels"] for rank in label["ranks"].values()]
    assert bases.count(basis) > 2 * LABELS and set(bases) <= {basis, "values"}, "the smallest tensors are kept whole"
    assert all(rank["metrics"]["rel_l2"] < 1e-5 for label in found["labels"] for rank in label["ranks"].values())
    whole = (rounds / "clean" / "shards" / "rank00001.h5").stat().st_size
    assert (rounds / name / "shards" / "rank00001.h5").stat().st_size < whole


def test_a_row_that_is_wrong_has_the_same_name_by_fingerprints(rounds: Path) -> None:
    names = []
    for name in ("stale", "stale-fingerprint"):
        found = read_report(rounds / name)
        label = next(each for each in found["labels"] if each["label"] == found["first_divergence"]["label"])
        places = {rank: verdict["worst_row_name"].split(", ", 1) for rank, verdict in label["ranks"].items()}
        names.append({rank: place for rank, (_, place) in places.items()})  # the engine counts its requests on
    assert names[0] == names[1]
    told = (rounds / "permuted-stats" / "out.txt").read_text()
    assert "everything before it matches on all ranks as far as norms tell" in told


def test_positions_after_a_prefix_hit_are_named(rounds: Path) -> None:
    """Only the rows behind the hit are wrong, of the request that was asked last."""
    found = read_report(rounds / "shifted")
    label = next(each for each in found["labels"] if each["label"] == found["first_divergence"]["label"])
    name = label["ranks"]["0"]["worst_row_name"]
    position = int(name.split("position ")[1].split(",")[0])
    last = max(int(note.split("'")[1]) for note in found["notes"] if "were taken from a cache" in note)
    assert name.startswith(f"request {last}, ") and position >= 32
    assert f"request {last}, positions" in (rounds / "shifted" / "out.txt").read_text()


def test_the_reversed_rows_are_recognised(rounds: Path) -> None:
    out = (rounds / "permuted" / "out.txt").read_text()
    assert "the channels are in reverse order" in out and "rank 1 alone of 3" in out


def test_exchanged_parts_and_the_slice_of_another_rank_are_recognised(rounds: Path) -> None:
    out = (rounds / "exchanged" / "out.txt").read_text()
    assert "Looks like: it is golden's model.layers.1.self_attn.v_proj:" in out, out
    out = (rounds / "neighbour" / "out.txt").read_text()
    assert "Looks like: rank 1 holds what belongs to rank 2:" in out, out


@pytest.mark.parametrize("name", ["cache", "cache-fingerprint"])
def test_what_the_cache_holds_matches(rounds: Path, name: str) -> None:
    """Each row once, and those of the prefix that a request found in the cache, which it did not compute."""
    found = read_report(rounds / name)
    assert found["exit_code"] == 0 and found["coverage"]["compared"] == 3 * WITH_CACHE
    rows = {label["label"]: label["ranks"]["0"]["stats"]["n"] for label in found["labels"]}
    computed = rows["model.layers.1.self_attn.k_proj"]
    for layer in range(3):
        for kind in ("k_cache", "v_cache"):
            assert rows[f"model.layers.{layer}.self_attn.{kind}"] == computed + 32 * 64, "one of three heads"
    assert any("were taken from a cache" in note for note in found["notes"])


def test_blocks_of_the_cache_are_named(rounds: Path) -> None:
    """The requests of a round are the long one, a second and a short one, and the long one again."""
    told = {}
    for name in ("zeroed", "copied", "swapped"):
        found = read_report(rounds / name)
        names = {label["ranks"]["0"]["worst_row_name"].split(",")[0] for label in found["labels"]}
        first = min(int(each.removeprefix("request ")) for each in names if each)
        hints = [hint["words"] for hint in found["hints"] if "block" in hint["kind"]]
        told[name] = first, hints
    first, (words,) = told["zeroed"]
    assert re.match(rf"all of it is in block (\d+) \(position 3 of request {first}\), block \1 \(position 3 of", words)
    first, (words,) = told["copied"]
    held = rf"block \d+ holds positions 0-16 of request {first} \(expected: positions 0-16 of request {first + 1}\)"
    assert re.match(held, words), words
    first, (words,) = told["swapped"]
    for one, other in ((first, first + 1), (first + 1, first)):
        assert f"holds positions 0-17 of request {other} (expected: positions 0-17 of request {one})" in words, words


def test_half_precision_matches_with_its_reference(
    engine: Path, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = play(engine, tmp_path_factory.mktemp("bfloat16"), smollm2, "bfloat16", "clean", "cache", "swapped")
    with_cache = read_report(folder / "cache")
    assert with_cache["exit_code"] == 0 and with_cache["coverage"]["compared"] == 3 * WITH_CACHE
    assert "of request" in " ".join(hint["words"] for hint in read_report(folder / "swapped")["hints"])
    found = read_report(folder / "clean")
    assert found["exit_code"] == 0 and found["coverage"]["compared"] == 3 * LABELS
    assert all("reference" in label["ranks"]["0"]["floors"] for label in found["labels"][1:])
    assert found["tokens"][0]["counts"]["wrong"] == 0 and "reference" in found["tokens"][0]["noise_source"]


def test_one_command_checks_an_engine_eager_and_compiled(engine: Path, smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(f"{LONG}\n\nOnce upon a time\n")
    options = ("--dtype", "float32", "--max-model-len", "256", "--block-size", "32", "--max-num-batched-tokens", "32")
    done = run(
        engine, tmp_path, "check", str(smollm2), "--prompts", "prompts.txt", "--max-tokens", "4", "--output", "run",
        "--modes", "eager,compiled", "--", *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    for mode in ("eager", "compiled"):
        found = read_report(tmp_path / "run" / mode)
        assert found["verdict"] == "match" and found["coverage"]["compared"] == LABELS
        assert found["weights"]["findings"] == [] and found["weights"]["known"] == 20
    assert done.stdout.count("weights: 20 parameters on 1 rank are golden's\n") == 2
    assert done.stdout.count(f"All match: {LABELS} labels") == 2
    assert done.stdout.splitlines()[-2:] == ["eager agrees with the original", "compiled agrees with the original"]


def test_an_engine_that_dies_while_it_loads(engine: Path, smollm2: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for each in smollm2.iterdir():
        (broken / each.name).write_bytes(each.read_bytes()[: 5000 if each.suffix == ".safetensors" else None])
    (tmp_path / "prompts.txt").write_text("Once upon a time\n")
    done = run(engine, tmp_path, "check", str(broken), "--prompts", "prompts.txt", "--output", "run")
    assert done.returncode == 3 and "rank 0" in done.stdout and "safetensors" in done.stdout.lower(), done
