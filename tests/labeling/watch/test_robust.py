"""What a watch must survive and what it must say: odd versions of torch, odd outputs, wrappers, names nothing has."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.labeling.test_api import run_script
from tests.labeling.watch.test_handle import PREAMBLE, ids, values, watched

pytestmark = pytest.mark.model


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("torch.compiler", "is_compiling"),
        ("torch", "compiler"),
        ("torch._C", "_current_graph_task_id"),
        ("torch.jit", "is_tracing"),
        ("torch.cuda", "is_initialized"),
        ("torch.cuda", "is_current_stream_capturing"),
        ("torch", "cuda"),
        ("torch.npu", "is_initialized"),
        ("torch.npu", "is_current_stream_capturing"),
    ],
)
def test_a_torch_that_lacks_a_function(tmp_path: Path, place: str, name: str) -> None:
    """It lacks it for the watch: torch of today calls most of them itself."""
    script = f"""
import types
torch.npu = types.SimpleNamespace(is_initialized=lambda: True, is_current_stream_capturing=lambda: False)
net = Net()
there = getattr({place}, "{name}")
del {place}.{name}
watching = watch(net, "pta", inputs=True, include=["a", "b"])
if "npu" not in "{place}":
    {place}.{name} = there
net(x)
"""
    index, told = watched(tmp_path, script)
    assert told == []
    assert ids(index) == ["a.input", "a", "b.input", "b"]


@pytest.mark.parametrize("strict", [False, True])
def test_nothing_leaves_a_hook(tmp_path: Path, strict: bool) -> None:
    script = """
import types
class Worse(RuntimeError):
    def __str__(self): raise self
class Broken:
    def write(self, text): raise RuntimeError
    def flush(self): pass
error = RuntimeError("device lost")
def ask(): raise error
torch.npu = types.SimpleNamespace(is_current_stream_capturing=ask)
net = Net()
y = net(x)
with watch(net, "pta", inputs=True):
    assert torch.equal(net(x), y)
    error = Worse()
    assert torch.equal(net(x), y)
    error, there, sys.stderr = RuntimeError("another"), sys.stderr, Broken()
    assert torch.equal(net(x), y)
    sys.stderr, torch.npu = there, None
"""
    _, told = run_script(tmp_path, PREAMBLE + script, strict=strict)
    lost, never_ran = told.splitlines()
    assert lost == "aclcmp: watch could not label what passes 'forward': RuntimeError: device lost"
    assert "3 of 3 watched modules never ran" in never_ran


def test_scripting_a_watched_model_says_what_to_do(tmp_path: Path) -> None:
    script = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
from plain import Plain
net = Plain()
with watch(net, "pta"):
    try:
        torch.jit.script(net)
    except AttributeError as error:
        assert "script a model, then watch it" in str(error), error
    else:
        raise AssertionError("torch can script these hooks")
    net(x)
torch.jit.script(net)(x)
"""
    (tmp_path / "plain.py").write_text(
        "import torch\nclass Plain(torch.nn.Module):\n    def forward(self, x):\n        return torch.relu(x)\n"
    )
    (tmp_path / "shards").mkdir()
    index, told = watched(tmp_path / "shards", f"sys.path.append({str(tmp_path)!r})" + script)
    assert ids(index) == ["forward"] and told == []


def test_parallel_wrappers_add_nothing_to_the_names(tmp_path: Path) -> None:
    script = f"""
import torch.distributed as dist
dist.init_process_group("gloo", init_method="file://{tmp_path}/meeting", rank=0, world_size=1)
names = {{name: name for name in ("forward", "a", "b")}}
net = Net()
y = net(x)
for wrapped in (
    nn.parallel.DistributedDataParallel(net),
    nn.DataParallel(net),
    torch.compile(nn.parallel.DistributedDataParallel(net), backend="eager"),
    nn.DataParallel(torch.compile(net, backend="eager")),
):
    watching = watch(wrapped, "pta")
    assert watching.ids == names, watching.ids
    watching._remove()
inside = nn.Sequential(nn.parallel.DistributedDataParallel(net))
with watch(nn.parallel.DistributedDataParallel(net), "pta") as watching, watch(inside, "acl") as other:
    assert list(other.ids) == ["forward", "0", "0.a", "0.b"], other.ids
    inside(x).sum().backward()
with watch(nn.parallel.DistributedDataParallel(net), "pta", include="a") as watching:
    nn.parallel.DistributedDataParallel(net)(x)
class Own(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module
    def forward(self, x):
        return self.module(x) + 1
with watch(Own(net), "acl", rename={{"module.**": "**"}}, prefix="p") as watching:
    assert watching.ids == {{"module": "p", "module.a": "p.a", "module.b": "p.b"}}, watching.ids
with watch(Own(net), "acl") as watching:
    assert list(watching.ids) == ["forward", "module", "module.a", "module.b"]
dist.destroy_process_group()
"""
    (tmp_path / "shards").mkdir()
    index, _ = watched(tmp_path / "shards", script)
    assert ids(index) == ["a", "b", "a"]
    assert ids(index, "acl") == ["0.a", "0.b", "0", "forward"]


def test_patterns_that_match_nothing_are_told(tmp_path: Path) -> None:
    script = """
net = nn.Sequential(Net(), Fn(lambda x: (x, x)), nn.ModuleList([nn.Identity()]))
rules = {"0.*": "layer.*", "encoder.*": "x.*", "2": "list", "0.**": "y.**"}
with watch(net, "pta", exclude=["1.1", "0.c", "2"], rename=rules) as watching:
    net[1](net[0](x))
    net[2][0](x)
    print("--", file=sys.stderr)
with watch(net, "pta", exclude="0.c", include="0") as watching:
    print("never runs", file=sys.stderr)
"""
    index, told = watched(tmp_path, script)
    assert ids(index) == ["layer.a", "layer.b", "y", "1", "list.0"]
    assert told == [
        "aclcmp: watch: rename: no module is named like 'encoder.*'; nearest names: 0, 0.a, 0.b",
        "--",
        told[2],
        "aclcmp: watch: exclude: nothing is named like '0.c'; nearest names: 0.b, 0.a, 0",
        "aclcmp: watch: exclude: nothing is named like '2'; nearest names: 2.0",
        "never runs",
        told[-1],
    ]


def test_levels(tmp_path: Path) -> None:
    script = """
net = nn.Sequential()
net.add_module("fc1", nn.Linear(4, 4))
net.add_module("layers", nn.Sequential(Net(), nn.ReLU()))
with watch(net, "pta"):
    net(x)
with watch(nn.ReLU(), "acl", prefix="only") as watching:
    pass
with watch(net[0], "acl", prefix="only"):
    net[0](x)
"""
    index, _ = watched(tmp_path, script)
    assert {record.data_id: record.level for record in index.records} == {
        "fc1": "op",
        "layers.0.a": "op",
        "layers.0.b": "op",
        "layers.0": "",
        "layers.1": "op",
        "layers": "",
        "forward": "model",
        "only": "model",
    }


def test_outputs_without_a_tensor_that_is_found(tmp_path: Path) -> None:
    script = """
class Foo:
    def __init__(self, x): self.x = x
class KeyCache(Foo): pass
outputs = [lambda x: Foo(x), lambda x: Foo(x), lambda x: {x}, lambda x: (t for t in (x,)), lambda x: [None, (Foo(x),)],
    lambda x: x.numpy(), lambda x: (x, Foo(x)), lambda x: KeyCache(x), lambda x: None, lambda x: [], lambda x: (3, "a"),
    lambda x: {"a": None, "past_key_values": Foo(x)}, lambda x: [KeyCache(x)], lambda x: True]
net = nn.ModuleList([Fn(output) for output in outputs])
with watch(net, "pta"):
    for module in net:
        module(x)
"""
    index, told = watched(tmp_path, script)
    assert ids(index) == ["6"]
    assert told == [
        f"aclcmp: watch: {name!r}: its output is a {kind}, in which no tensor is found: not labelled"
        for name, kind in (("0", "Foo"), ("2", "set"), ("3", "generator"), ("5", "ndarray"))
    ]


def test_modules_that_healthy_models_do_not_call(tmp_path: Path) -> None:
    script = """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.used = nn.Embedding(4, 4), nn.Embedding(4, 4)
        self.used.weight = self.shared.weight
        self.mha, self.drop = nn.MultiheadAttention(4, 2, batch_first=True), nn.Dropout1d()
    def forward(self, x):
        return self.mha(x, x, self.used(x.long()[:, 0] % 4), need_weights=False)[0]
net = Tied().eval()
with watch(net, "pta"):
    net(x)
net.alone = nn.Embedding(4, 4)
with watch(net, "pta") as watching:
    net(x)
"""
    _, told = watched(tmp_path, script)
    assert len(told) == 1 and told[0].startswith("aclcmp: watch, side 'pta': 1 of 7") and told[0].endswith(": alone")


def test_one_rank_of_a_host_says_what_all_would_say(tmp_path: Path) -> None:
    script = """
net = Net()
with watch(net, "pta", include=["a", "b", "c"], exclude="d", rename={"e": "f"}):
    net.a(x)
class Foo: pass
odd = Fn(lambda x: Foo())
with watch(odd, "acl"):
    odd(x)
"""
    lines = []
    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
        _, stderr = run_script(tmp_path / rank, PREAMBLE + script, LOCAL_RANK=rank)
        lines.append(stderr.splitlines())
    assert len(lines[0]) == 5 and lines[1] == lines[0][-1:]
    assert "Foo" in lines[1][0]


def test_wrong_ids_and_ids_that_read_alike(tmp_path: Path) -> None:
    script = """
net = Net()
refused(net, "pta", prefix=3)
refused(net, "pta", prefix=None)
refused(net, "pta", prefix="p" * 1023)
refused(net, "pta", prefix="a\\0")
refused(net, "pta", rename={"a": "\\ud800"})
assert not any(module._forward_hooks for module in net.modules())
watch(net, "pta", prefix="p" * 1022).close()
alike = Fn(lambda x: {1: x, "1": x + 1, "a": {"b": x}, "a.b": x, True: x})
with watch(alike, "acl", prefix="é"):
    alike(x)
"""
    index, told = watched(tmp_path, script)
    assert ids(index, "acl") == ["é.1", "é.1~2", "é.a.b", "é.a.b~2"]
    assert values(index, "é.1~2") == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert told[:2] == ["REFUSED watch: prefix is a int, not a text", "REFUSED watch: prefix is a NoneType, not a text"]
    assert sum("no plain text of at most 1024 characters; change rename or prefix" in line for line in told) == 3


def test_how_a_watch_shows_itself(tmp_path: Path) -> None:
    script = """
with watch(Net(), "golden", include=["a", "b"]) as watching:
    assert repr(watching) == "<Watch: side 'pta', 2 modules>", watching
assert repr(watching) == "<Watch: side 'pta', 2 modules, closed>", watching
"""
    run_script(tmp_path, PREAMBLE + script)
    off = "from aclcmp import watch; assert repr(watch(None, '')) == '<Watch: off>'"
    subprocess.run([sys.executable, "-c", off], check=True)
