"""The GLM example as a script: alone, with a checkpoint, and with options that cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_reader import read_shard
from tests.examples.glm_ranks import GLM, rank_environment
from tests.processes import PATIENCE

pytestmark = pytest.mark.model

SAVE_CHECKPOINT = """
import sys, torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from dialogue import QUESTIONS
from model import random_model
random_model(layers=1, hidden=64, seed=3, dtype=torch.float32).save_pretrained(sys.argv[1])
words = sorted({word for question in QUESTIONS for word in question.replace("?", " ?").replace(",", " ,").split()})
vocabulary = {word: number for number, word in enumerate(["[UNK]", *words])}
tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(sys.argv[1])
"""

REFUSED = """
import sys
from run import main
for options in sys.argv[1:]:
    try:
        main(options.split())
    except SystemExit as end:
        print(end.code)
"""


def run_script(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(GLM / "run.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def test_runs_alone_without_labels() -> None:
    done = run_script("--layers", "1", "--hidden", "64", "--turns", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(" tokens")[0] for line in done.stdout.splitlines()] == [
        "turn 0: after 24",
        "turn 1: after 37",
        "turn 2: after 50",
    ]


def test_a_checkpoint_with_a_tokenizer_speaks_in_words(tmp_path: Path) -> None:
    checkpoint, shards = tmp_path / "check point", tmp_path / "shards"
    shards.mkdir()
    environment = rank_environment(shards, 0, 1, 0)
    subprocess.run(
        [sys.executable, "-c", SAVE_CHECKPOINT, str(checkpoint)], env=environment, check=True, timeout=PATIENCE
    )
    command = [sys.executable, "-W", "error", str(GLM / "run.py"), "--model", str(checkpoint)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(" golden")[0] for line in done.stdout.splitlines()] == [
        "turn 0: after 15 tokens",
        "turn 1: after 20 tokens",
    ]
    assert all("golden says '" in line for line in done.stdout.splitlines())
    records = read_shard(ShardFiles(shards, 0)).records
    assert {record.task for record in records} == {0, 1}
    assert not any(record.error for record in records)


def test_options_that_cannot_be() -> None:
    cases = {
        "--fault nan --layer 4": "--layer 4: the layers are 0 to 3",
        "--fault nan --rank 1": "--rank 1: the ranks are 0 to 0",
        "--fault double-reduce": "--fault double-reduce needs at least 2 ranks",
        "--turns 0": "--layers, --hidden and --turns must be at least 1",
        "--model nowhere": "--model nowhere: no config.json there",
    }
    command = [sys.executable, "-c", REFUSED, *cases]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(GLM)}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.split() == ["2"] * len(cases)
    errors = [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]
    assert errors == list(cases.values())
