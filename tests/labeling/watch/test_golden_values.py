"""A watched model on golden's values: labels are off by their own error alone; an injected one mends the rest."""

from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_label
from tests.labeling.test_api import run_script
from tests.labeling.watch.test_handle import PREAMBLE

pytestmark = pytest.mark.model

SCRIPT = (
    PREAMBLE
    + """
from collections import namedtuple
Pair = namedtuple("Pair", "hidden extra")

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.o = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = 1.0
    def forward(self, hidden, *, positions, cache=None):
        return self.o(torch.tanh(self.q(hidden) * self.scale) + positions), {"weights": hidden * 2}

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(4), Attention()
    def forward(self, pair):
        out, _ = self.attention(hidden=self.norm(pair.hidden), positions=pair.extra)
        return Pair(pair.hidden + out, pair.extra)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.head = nn.ModuleList([Layer(), Layer(), Layer()]), nn.Linear(4, 4)
    def forward(self, x):
        pair = Pair(x, torch.ones_like(x))
        for layer in self.layers:
            pair = layer(pair)
        return self.head(pair.hidden)

golden = Model().eval()
actual = copy.deepcopy(golden)
with torch.no_grad():
    actual.layers[0].attention.q.weight.mul_(1.1)
    actual.layers[1].attention.scale = 1.5
    actual.layers[2].norm.weight[1] = 3.0
    watch(golden, "golden", inputs=True)
    watch(actual, "actual", inputs=True)
    for turn in range(2):
        golden(x + turn)
        actual(x + turn)
"""
)
FAULTS = {"layers.0.attention.q", "layers.1.attention.o.input", "layers.2.norm"}


def wrong(index: ShardIndex, of_golden: ShardIndex) -> set[str]:
    """The actual labels that differ from golden's."""
    golden = {(r.data_id, r.occurrence): read_label(of_golden, r) for r in of_golden.records if r.side == "pta"}
    labels = [record for record in index.records if record.side == "acl"]
    assert not [record.error for record in labels if record.error]
    assert len(labels) == len(golden)
    return {r.data_id for r in labels if not np.allclose(read_label(index, r), golden[r.data_id, r.occurrence], 1e-5)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShardIndex]:
    folder = tmp_path_factory.mktemp("plain")
    (index,), _ = run_script(folder, SCRIPT, strict=True)
    return folder, index


def test_three_faults_are_three_labels(plain: tuple[Path, ShardIndex], tmp_path: Path) -> None:
    folder, golden = plain
    carried = wrong(golden, golden)
    assert carried > FAULTS and "head" in carried
    (index,), _ = run_script(tmp_path, SCRIPT, strict=True, ACLCMP_GOLDEN=str(folder))
    assert wrong(index, golden) == FAULTS


def test_inputs_are_replaced_though_the_script_watches_outputs_alone(
    plain: tuple[Path, ShardIndex], tmp_path: Path
) -> None:
    folder, golden = plain
    script = SCRIPT.replace('"actual", inputs=True', '"actual"')
    (index,), _ = run_script(tmp_path, script, strict=True, ACLCMP_GOLDEN=str(folder))
    assert wrong(index, golden) == FAULTS


def test_injected_labels_mend_what_follows(plain: tuple[Path, ShardIndex], tmp_path: Path) -> None:
    folder, golden = plain
    (index,), _ = run_script(
        tmp_path, SCRIPT, strict=True, ACLCMP_GOLDEN=str(folder), ACLCMP_INJECT="layers.1.hidden,layers.2.norm"
    )
    found = wrong(index, golden)
    assert "layers.1.hidden" in found and "layers.2.norm" in found, "the label itself is recorded as it was computed"
    assert not any(name.startswith(("layers.2.attention", "head", "forward")) for name in found)


def test_compiled_code_does_not_pass_for_measured(tmp_path: Path) -> None:
    """A hook in compiled code cannot replace a value: its label fails, and is not taken for an own error."""
    script = (
        PREAMBLE
        + """
golden, actual = Net(), Net()
watch(golden, "golden")
watch(actual, "actual")
with torch.no_grad():
    golden(x)
    torch.compile(actual, backend="eager")(x)
"""
    )
    for folder in (tmp_path / "golden", tmp_path / "actual"):
        folder.mkdir()
    run_script(tmp_path / "golden", script, strict=True)
    (index,), stderr = run_script(tmp_path / "actual", script, ACLCMP_GOLDEN=str(tmp_path / "golden"))
    labels = [record for record in index.records if record.side == "acl"]
    assert {label.data_id for label in labels} >= {"a", "b"}
    assert all("compiled or captured code" in label.error for label in labels), stderr
