"""Labels in captured graphs of a SIMULATED device (`tests/device_graph.py`): each replay is recorded."""

from pathlib import Path

import pytest

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_label
from tests.device_graph import DEVICE_GRAPH
from tests.labeling.test_api import run_script

pytestmark = pytest.mark.model

START = (
    DEVICE_GRAPH
    + """
import gc, types, weakref
import aclcmp
from torch import nn
torch.set_grad_enabled(False)
torch.manual_seed(0)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
    def forward(self, x):
        x = self.b(self.a(x).relu_())  # in place: what is labelled is overwritten at once
        aclcmp.set_label(side, "user", x * 2)
        return x

net = Net()
side = "acl"

def capture(size):
    captured, x = CPUGraph(), torch.zeros(size, 4)
    with graph(captured):
        net(x)
    def replay(value):
        x.copy_(torch.arange(float(size * 4)).reshape(size, 4) + value)
        captured.replay()
        return x
    return captured, replay
"""
)


def labels(index: ShardIndex, side: str = "acl") -> list[tuple[str, int, list[float]]]:
    """Return (id, task, values) in the order of recording."""
    return [
        (each.data_id, each.task, read_label(index, each).reshape(-1).tolist())
        for each in index.records
        if each.side == side and not each.error
    ]


def failed(index: ShardIndex) -> dict[str, str]:
    return {each.data_id: each.error for each in index.records if each.error}


def run(folder: Path, script: str) -> tuple[ShardIndex, str]:
    (index,), told = run_script(folder, START + script)
    return index, told


def test_every_replay_is_recorded_with_its_values_in_its_task(tmp_path: Path) -> None:
    """Graphs of several sizes, replayed in turn, against the same model run eagerly on the same inputs."""
    script = """
with aclcmp.watch(net, "acl", inputs=True):
    replays = [capture(size)[1] for size in (1, 3)]
    inputs = []
    for turn, size in enumerate((0, 1, 1, 0)):
        aclcmp.set_task_id()
        inputs.append(replays[size](10 * turn).clone())
side = "pta"
with aclcmp.watch(net, "pta", inputs=True):
    for turn, x in enumerate(inputs):
        aclcmp.set_task_id(turn)
        net(x)
"""
    index, told = run(tmp_path, script)
    actual, golden = labels(index), labels(index, "pta")
    assert told == "" and actual == golden and not failed(index)
    each = ["forward.input", "a.input", "a", "b.input", "b", "user", "forward"]
    assert [name for name, _, _ in actual] == each * 4 and {task for _, task, _ in actual} == {0, 1, 2, 3}
    assert len({tuple(value) for name, _, value in actual if name == "forward"}) == 4
    site = next(each.call_site for each in index.records if each.data_id == "user")
    assert site.startswith("<string>:") and next(r for r in index.records if r.data_id == "a").level == "op"


def test_rows_are_those_of_the_replay(tmp_path: Path) -> None:
    script = """
with aclcmp.watch(net, "acl", include="a"):
    _, replay = capture(2)
    for number in range(2):
        with aclcmp.rows(["p", "q"], [number, number]):
            replay(number)
"""
    index, _ = run(tmp_path, script)
    tables = [index.rows[each.rows].numbers.tolist() for each in index.records if each.data_id == "a"]
    assert [[position for _, position, _ in table] for table in tables] == [[0, 0], [1, 1]]


@pytest.mark.parametrize("end", ["del captured, replay", "captured.reset()", "with graph(captured): pass"])
def test_a_graph_that_is_gone_frees_its_copies(tmp_path: Path, end: str) -> None:
    script = f"""
watching = aclcmp.watch(net, "acl")
captured, replay = capture(3)
replay(1)
clones = [weakref.ref(clone) for clone, _ in captured._aclcmp_clones]
assert len(clones) == 4 and all(clone() is not None for clone in clones)
{end}
gc.collect()
assert all(clone() is None for clone in clones)
"""
    index, told = run(tmp_path, script)
    assert told == "" and len(labels(index)) == 4


def test_a_closed_watch_records_no_more_replays(tmp_path: Path) -> None:
    script = """
with aclcmp.watch(net, "acl"):
    _, replay = capture(3)
    replay(1)
replay(2)
"""
    index, _ = run(tmp_path, script)
    assert [name for name, _, _ in labels(index)] == ["a", "b", "user", "forward", "user"]


def test_a_copy_without_memory_is_a_failed_label_and_the_capture_goes_on(tmp_path: Path) -> None:
    script = """
CPUGraph.memory = 4
watching = aclcmp.watch(net, "acl", exclude="forward")
for size in (1, 2):
    _, replay = capture(size)
    x = replay(1)
    assert x.shape == (size, 4)
"""
    index, told = run(tmp_path, script)
    assert [name for name, _, _ in labels(index)] == ["a", "b", "user"], "the small graph has its labels"
    why = (
        "it runs while a device graph is captured, and could not be cloned there (OutOfMemoryError: CPU out of memory. "
        "Tried to allocate): label less (--labels), capture fewer sizes, or run without graphs"
    )
    assert failed(index) == {name: why for name in ("a", "b", "user")} and told.count(why) == 1


def test_only_selected_labels_are_copied(tmp_path: Path) -> None:
    script = """
watching = aclcmp.watch(net, "acl")
captured, replay = capture(3)
assert len(captured._aclcmp_clones) == 1
replay(1)
"""
    (index,), _ = run_script(tmp_path, START + script, ACLCMP_LABELS="^b$")
    assert [name for name, _, _ in labels(index)] == ["b"]


def test_a_tensor_without_dense_data_is_a_failed_label(tmp_path: Path) -> None:
    script = """
aclcmp.set_label("acl", "first", torch.ones(2))
captured, sparse = CPUGraph(), torch.ones(2, 2).to_sparse()
with graph(captured):
    aclcmp.set_label("acl", "x", sparse)
    aclcmp.set_label("acl", 3, torch.ones(2))
captured.replay()
"""
    index, _ = run(tmp_path, script)
    assert "without plain dense data" in failed(index)["x"] and "3" in failed(index)


def test_what_cannot_be_seen_keeps_its_reason(tmp_path: Path) -> None:
    """A capture that began before the first label; inductor's own graphs; a torch without the class."""
    script = """
with graph(captured := CPUGraph()):
    aclcmp.set_label("acl", "early", torch.ones(2))
captured.replay()
with graph(captured := CPUGraph()):
    aclcmp.set_label("acl", "late", torch.ones(2))
captured.replay()

trees = types.ModuleType("torch._inductor.cudagraph_trees")
exec("def record(captured, graph, run):\\n    with graph(captured):\\n        run()", vars(trees))
watching = aclcmp.watch(net, "acl", include="a")
trees.record(captured := CPUGraph(), graph, lambda: net(torch.ones(1, 4)))
captured.replay()

class Other:
    memory = CPUGraph.memory
torch.cpu.CPUGraph = Other
for call in ("capture_begin", "capture_end", "replay"):
    setattr(Other, call, vars(CPUGraph)[call].__wrapped__)  # no reset
aclcmp.set_label("acl", "seen", torch.ones(2))
with graph(captured := Other()):
    aclcmp.set_label("acl", "other", torch.ones(2))
captured.replay()
"""
    index, told = run(tmp_path, script)
    why = (
        "it runs while a device graph is captured, where nothing can be copied, and the graph's replay calls no Python"
    )
    assert [name for name, _, _ in labels(index)] == ["late", "seen"]
    assert list(failed(index)) == ["early", "user", "other"] and all(why in each for each in failed(index).values())
    assert "watch: 'a' runs while a device graph is captured, where nothing can be copied" in told


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_labels_of_compiled_code_are_in_the_graph_too(tmp_path: Path, backend: str) -> None:
    script = f"""
side, labels = "acl", []
plain = nn.Sequential(net.a, nn.ReLU(), net.b)
watching = aclcmp.watch(plain, "acl")
compiled = torch.compile(plain, backend={backend!r}, fullgraph=True)
x = torch.ones(3, 4)
compiled(x)
aclcmp.set_task_id(1)
with graph(captured := CPUGraph()):
    compiled(x)
for value in (2, 3):
    x.fill_(value)
    captured.replay()
watching.close()
aclcmp.set_task_id(1)
with aclcmp.watch(plain, "pta"):
    for value in (2, 3):
        x.fill_(value)
        plain(x)
"""
    index, _ = run(tmp_path, script)
    actual = [each for each in labels(index) if each[1] == 1]
    golden = labels(index, "pta")
    assert [each[:2] for each in actual] == [each[:2] for each in golden]
    assert [each[2] for each in actual] == [pytest.approx(each[2], rel=1e-5, abs=1e-6) for each in golden]
