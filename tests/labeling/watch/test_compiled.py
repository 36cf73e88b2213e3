"""Code where hooks do not fire: compiled, traced, scripted and captured. It runs as ever, and the watch says so."""

from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.shard_reader import read_label
from tests.labeling.watch.test_handle import ids, watched

pytestmark = pytest.mark.model

SAID = (
    "runs in compiled code with gradients, or passes no plain tensors there: not labelled; run it under "
    "torch.no_grad(), or eagerly, or call set_label outside the compiled part"
)
SILENT = "watched modules never ran, or ran in compiled code or a replayed device graph, where hooks do not fire:"
PLAIN = """
import torch
class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(4, 4)
    def forward(self, x):
        return torch.relu(self.a(x))
"""


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("inputs", [False, True])
def test_compiled_after_and_before_watching(tmp_path: Path, full: bool, inputs: bool) -> None:
    script = f"""
import torch._dynamo
options = dict(backend="eager", fullgraph={full})
for how in ("wrapped after", "wrapped before", "in place", "forward"):
    torch._dynamo.reset()
    net = Net()
    y = net(x)
    if how == "wrapped before":
        net = torch.compile(net, **options)
    watching = watch(net, "pta", inputs={inputs}, prefix=how[:9].replace(" ", "_"))
    assert set(watching.ids) == {{"forward", "a", "b"}}
    if how == "wrapped after":
        net = torch.compile(net, **options)
    if how == "in place":
        net.compile(**options)
    if how == "forward":
        net.forward = torch.compile(net.forward, **options)
    for _ in range(2):
        assert torch.equal(net(x), y)
    net(x.requires_grad_()).sum().backward()
    x = x.detach()
    print(how, len(watching._hooks.taps), file=sys.stderr)
    watching.close()
"""
    (tmp_path / "shards").mkdir()
    index, told = watched(tmp_path / "shards", script)
    # The wrapper's own hooks, and those of a module with a compiled forward, fire; all others are in compiled code.
    ends = ["wrapped_b.input", "wrapped_b"] * 3 + ["forward.input", "forward"] * 3
    assert ids(index) == [end for end in ends if inputs or not end.endswith("input")]
    first = "wrapped_a" if inputs else "wrapped_a.a"
    assert told == [
        f"aclcmp: watch: {first!r} {SAID}",
        "wrapped after 3",
        f"aclcmp: watch, side 'pta': 3 of 3 {SILENT} wrapped_a, wrapped_a.a, wrapped_a.b",
        "wrapped before 3",
        f"aclcmp: watch, side 'pta': 2 of 3 {SILENT} wrapped_b.a, wrapped_b.b",
        "in place 3",
        f"aclcmp: watch, side 'pta': 3 of 3 {SILENT} in_place, in_place.a, in_place.b",
        "forward 3",
        f"aclcmp: watch, side 'pta': 2 of 3 {SILENT} forward.a, forward.b",
    ]


@pytest.mark.parametrize(
    ("backend", "inputs"), [("eager", False), ("eager", True), ("aot_eager", True), ("inductor", True)]
)
def test_compiled_without_gradients_everything_is_labelled(tmp_path: Path, backend: str, inputs: bool) -> None:
    script = f"""
import collections, warnings
warnings.simplefilter("ignore")  # inductor's own
class Pair(nn.Module):
    def forward(self, x):
        return x * 2, None, x + 1
Named = collections.namedtuple("Named", "less nothing same")
class Names(nn.Module):
    def forward(self, x):
        return Named(x - 1, None, x)
class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.pair, self.names = Net(), Pair(), Names()
    def forward(self, x):
        double, _, more = self.pair(self.net(x))
        named = self.names(double)
        return named.less + named.same + more
torch.manual_seed(0)
both = Both()
with torch.no_grad():
    for side, model in (("pta", both), ("acl", torch.compile(both, backend={backend!r}, fullgraph=True))):
        with watch(both, side, inputs={inputs}):
            for _ in range(2):
                model(x)
        torch._dynamo.reset()
"""
    (tmp_path / "shards").mkdir()
    index, told = watched(tmp_path / "shards", script)
    assert told == []
    assert sorted(ids(index)) == sorted(ids(index, "acl"))
    modules = {"forward", "net", "net.a", "net.b", "pair"}
    names = modules | {"pair.2", "names.less", "names.same"}
    assert set(ids(index)) == names | ({f"{name}.input" for name in modules | {"names"}} if inputs else set())
    golden, actual = ({r.data_id: read_label(index, r) for r in index.records if r.side == s} for s in ("pta", "acl"))
    for name, value in golden.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-6)


def test_graphs_of_two_models_have_taps_of_their_own(tmp_path: Path) -> None:
    """The models' modules have the same names; the second is gone, and the first runs on."""
    script = """
one, two = Net(), Net()
with torch.no_grad():
    for _ in range(2):
        watching = [watch(net, "pta") for net in (one, two)]
        graphs = [torch.compile(net, backend="eager") for net in (one, two)]
        for graph in graphs:
            graph(x)
        watching.pop().close()
        del graph, two, graphs[1]
        graphs[0](x)
        watching.pop().close()
        graphs[0](x)
        torch._dynamo.reset()
        two = Net()
"""
    index, told = watched(tmp_path, script)
    assert ids(index) == ["a", "b", "forward"] * 6 and told == []


def test_watched_after_the_first_compiled_run(tmp_path: Path) -> None:
    script = """
net = torch.compile(Net(), backend="eager")
net(x)
with watch(net, "pta"):
    net(x)
regional = nn.Sequential(Net(), Net())
regional[0] = torch.compile(regional[0], backend="eager")
with watch(regional, "acl") as watching:
    assert set(watching.ids) == {"forward", "0", "0.a", "0.b", "1", "1.a", "1.b"}
    regional(x)
"""
    index, told = watched(tmp_path, script)
    assert ids(index) == ["forward"]
    assert ids(index, "acl") == ["0", "1.a", "1.b", "1", "forward"]
    assert told[0] == f"aclcmp: watch, side 'pta': 2 of 3 {SILENT} a, b"
    assert told[-1] == f"aclcmp: watch, side 'acl': 2 of 7 {SILENT} 0.a, 0.b"


def test_scripted_and_traced(tmp_path: Path) -> None:
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
from plain import Plain
scripted = torch.jit.script(Plain())
net = nn.Sequential(Plain(), scripted)
with watch(net, "pta") as watching:
    net(x)
    assert set(watching.ids) == {"forward", "0", "0.a"}
    assert len(watching.notes) == 1
try:
    watch(scripted, "pta")
except LabelError as error:
    print(error, file=sys.stderr)
plain = Plain()
with watch(plain, "acl"):
    torch.jit.trace(plain, x, check_trace=False)(x)
exported = Plain()
with watch(exported, "acl"):
    torch.export.export(exported, (x,))
"""
    (tmp_path / "shards").mkdir()
    (tmp_path / "plain.py").write_text(PLAIN)
    index, told = watched(tmp_path / "shards", f"sys.path.append({str(tmp_path)!r})" + script)
    assert ids(index) == ["0.a", "0", "forward"] and ids(index, "acl") == []
    assert told == [
        "aclcmp: watch, side 'pta': 1: it is scripted and takes no hooks: not labelled",
        "watch: nothing to watch: every module is excluded, or has no forward in Python",
        "aclcmp: watch: what runs under torch.jit.trace is not labelled; run the model itself",
        f"aclcmp: watch: 'a' {SAID}",
        f"aclcmp: watch, side 'acl': 2 of 2 {SILENT} forward, a",
    ]


@pytest.mark.parametrize("device", ["cuda", "npu"])
def test_capture_is_asked_for_as_the_devices_answer(tmp_path: Path, device: str) -> None:
    """No device here: what torch says of its stream is given, as torch.cuda and torch_npu name it."""
    script = f"""
import types
capturing = True
answers = dict(is_initialized=lambda: True, is_current_stream_capturing=lambda: capturing)
if "{device}" == "npu":
    torch.npu = types.SimpleNamespace(**answers)
else:
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
net = Net()
with watch(net, "pta", inputs=True):
    net(x)
    capturing = False
    net(x)
"""
    index, told = watched(tmp_path, script)
    assert ids(index) == ["forward.input", "a.input", "a", "b.input", "b", "forward"]
    assert len(told) == 1 and told[0].startswith("aclcmp: watch: 'forward' runs while a device graph is captured")
