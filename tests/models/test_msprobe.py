"""msprobe's dump of a model against a run directory of the same model cut over ranks, and the other way round."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.plan.id_rules import IdMap, IdRule
from tests.models.comparing import check_green, judge_runs
from tests.models.running import Ranks

pytestmark = pytest.mark.model

SCRIPT, SMALL = "transformers_ranks.py", ("--tasks", "1", "--layers", "2")
NAMES = {
    "Module.model.embed_tokens.Embedding.forward.0.output.0": "model.embed_tokens",
    "Module.model.rotary_emb.LlamaRotaryEmbedding.forward.0.output.0": "model.rotary_emb",
    "Module.model.rotary_emb.LlamaRotaryEmbedding.forward.0.output.1": "model.rotary_emb.1",
    "Module.model.layers.*.*norm.LlamaRMSNorm.forward.0.output.0": "model.layers.*.*norm",
    "Module.model.layers.*.self_attn.*.Linear.forward.0.output.0": "model.layers.*.self_attn.*",
    "Module.model.layers.*.self_attn.LlamaAttention.forward.0.output.0": "model.layers.*.self_attn",
    "Module.model.layers.*.mlp.*_proj.Linear.forward.0.output.0": "model.layers.*.mlp.*_proj",
    "Module.model.layers.*.mlp.act_fn.SiLUActivation.forward.0.output.0": "model.layers.*.mlp.act_fn",
    "Module.model.layers.*.mlp.LlamaMLP.forward.0.output.0": "model.layers.*.mlp",
    "Module.model.layers.*.LlamaDecoderLayer.forward.0.output.0": "model.layers.*",
    "Module.model.norm.LlamaRMSNorm.forward.0.output.0": "model.norm",
    "Module.model.LlamaModel.forward.0.output.0.last_hidden_state": "model.last_hidden_state",
    "Module.lm_head.Linear.forward.0.output.0": "lm_head",
}
"""msprobe's names of what modules return, and those of a watch."""
LABELS = 1 + 2 + 2 * 13 + 1 + 1 + 1


@pytest.fixture(scope="module")
def dump(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """msprobe's dump of the whole model in one process: its inputs and weights are in there too."""
    folder = tmp_path_factory.mktemp("msprobe")
    ranks.run(folder / "run", SCRIPT, "golden", *SMALL, "--msprobe", str(folder / "dump"))
    return folder / "dump"


def id_map(*, dump_is_golden: bool) -> IdMap:
    both = [(theirs, ours) if dump_is_golden else (ours, theirs) for theirs, ours in NAMES.items()]
    only_theirs = ["**.input.*", "**.kwargs.**", "**.parameters.*"]
    drops = [(name, None) if dump_is_golden else (None, name) for name in only_theirs]
    only_ours = (None, "forward.logits") if dump_is_golden else ("forward.logits", None)
    return IdMap([IdRule(golden, actual) for golden, actual in (*both, *drops, only_ours)])


def test_a_dump_is_golden_for_tensor_parallel_ranks(ranks: Ranks, dump: Path, tmp_path: Path) -> None:
    ranks.run(tmp_path / "good", SCRIPT, "actual", *SMALL, "--untold", "--tp", "4", ranks=4)
    judgement = judge_runs(dump, tmp_path / "good", id_map(dump_is_golden=True))
    check_green(judgement, LABELS)
    assert judgement.coverage.compared == 4 * LABELS == 4 * len(judgement.labels)
    ranks.run(tmp_path / "bad", SCRIPT, "actual", *SMALL, "--tp", "4", "--fault", "1", "3", ranks=4)
    judgement = judge_runs(dump, tmp_path / "bad", id_map(dump_is_golden=True))
    first = judgement.first_divergence
    assert judgement.exit_code is ExitCode.DIVERGED and first is not None
    assert first.key.label == "Module.model.layers.1.self_attn.q_proj.Linear.forward.0.output.0"
    assert first.ranks == (3,)


def test_a_dump_of_tensor_parallel_ranks_is_held_against_a_run(ranks: Ranks, tmp_path: Path) -> None:
    ranks.run(tmp_path / "golden", SCRIPT, "golden", *SMALL)
    dumped = tmp_path / "dump"
    ranks.run(tmp_path / "run", SCRIPT, "actual", *SMALL, "--tp", "2", "--msprobe", str(dumped), ranks=2)
    judgement = judge_runs(tmp_path / "golden", dumped, id_map(dump_is_golden=False))
    check_green(judgement, LABELS)
    assert judgement.coverage.compared == 2 * LABELS


def test_two_dumps_at_other_world_sizes_with_weights_and_inputs(ranks: Ranks, dump: Path, tmp_path: Path) -> None:
    """Of what msprobe keeps of DTensors it says the placements: the weights. The rest is inferred."""
    dumped = tmp_path / "dump"
    ranks.run(tmp_path / "run", SCRIPT, "actual", *SMALL, "--tp", "2", "--msprobe", str(dumped), ranks=2)
    judgement = judge_runs(dump, dumped)
    check_green(judgement, 90)
    weight = "Module.model.layers.1.mlp.down_proj.Linear.forward.0.parameters.weight"
    (label,) = (label for label in judgement.labels if label.key.label == weight)
    assert {verdict.layout.partition(",")[0] for verdict in label.ranks} == {"Shard(dim=1)"}
