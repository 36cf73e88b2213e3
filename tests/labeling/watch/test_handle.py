"""Watching real torch modules in a process of their own; the labels are read back from its shard."""

from pathlib import Path

import pytest

from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_label
from tests.labeling.test_api import run_script

pytestmark = pytest.mark.model

PREAMBLE = """
import copy, dataclasses, pickle, re, sys, typing
import torch
from torch import nn
from aclcmp.labeling.watch import watch
from aclcmp.labeling.errors import LabelError
torch.manual_seed(0)

class Fn(nn.Module):
    "Returns what a function of its input returns."
    def __init__(self, fn, **children):
        super().__init__()
        self.fn = fn
        for name, child in children.items():
            self.add_module(name, child)
    def forward(self, x, *rest, **named):
        return self.fn(x, *rest, **named)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
    def forward(self, x):
        return self.b(torch.relu(self.a(x)))

def refused(*args, **kwargs):
    try:
        watch(*args, **kwargs)
    except LabelError as error:
        print("REFUSED", error, file=sys.stderr)
    else:
        raise AssertionError("not refused")

x = torch.arange(8.0).reshape(2, 4)
"""


def watched(folder: Path, script: str, *, strict: bool = True) -> tuple[ShardIndex, list[str]]:
    """Run a script after the preamble with warnings as errors; return its shard and the lines of its stderr."""
    (index,), stderr = run_script(folder, PREAMBLE + script, strict=strict, PYTHONWARNINGS="error")
    return index, stderr.splitlines()


def ids(index: ShardIndex, side: str = "pta") -> list[str]:
    return [record.data_id for record in index.records if record.side == side]


def values(index: ShardIndex, data_id: str) -> list[list[float]]:
    return [read_label(index, record).reshape(-1).tolist() for record in index.records if record.data_id == data_id]


def test_default_is_every_module_that_can_run(tmp_path: Path) -> None:
    script = """
net = nn.Sequential()
net.add_module("layers", nn.ModuleList([Net(), Net()]))
net.forward = lambda x: net.layers[1](net.layers[0](x))
y = net(x)
watching = watch(net, "golden")
assert torch.equal(net(x), y)
layers = [f"layers.{n}{child}" for n in (0, 1) for child in ("", ".a", ".b")]
assert watching.ids == {name: name for name in ("forward", *layers)}
assert net(x).requires_grad
watching.close()
net(x)
"""
    index, told = watched(tmp_path, script)
    assert told == []
    once = ["layers.0.a", "layers.0.b", "layers.0", "layers.1.a", "layers.1.b", "layers.1", "forward"]
    assert ids(index) == once * 2
    assert [record.occurrence for record in index.records] == [0] * 7 + [1] * 7
    assert [record.level for record in index.records if record.data_id == "forward"] == ["model"] * 2
    assert values(index, "layers.1.b") == values(index, "layers.1") == values(index, "forward")


def test_what_outputs_can_be(tmp_path: Path) -> None:
    script = """
@dataclasses.dataclass
class Out:
    hidden: torch.Tensor
    scores: tuple
    nothing: typing.Optional[torch.Tensor] = None
    past_key_values: object = None
class Named(typing.NamedTuple):
    left: object
    right: object
class KeyCache(dict): pass
itself = []
itself.append(itself)
model = nn.ModuleDict({
    "plain": Fn(lambda x: x),
    "pair": Fn(lambda x: (x, None)),
    "late": Fn(lambda x: (None, x, 3, x + 1)),
    "dual": Fn(lambda x: (x, x + 1)),
    "nested": Fn(lambda x: [[x, x + 1], (x + 2,)]),
    "mapping": Fn(lambda x: {"logits": x, 3: [x], "past_key_values": (x, x), "no": None}),
    "data": Fn(lambda x: Out(x, (x, {"deep": x}), None, (x,))),
    "named": Fn(lambda x: Named(x, (None, x))),
    "first": Fn(lambda x: ({"k": x}, x)),
    "cache": Fn(lambda x: (x, KeyCache(a=x))),
    "none": Fn(lambda x: None),
    "text": Fn(lambda x: "text"),
    "itself": Fn(lambda x: itself),
    "scalar": Fn(lambda x: (x.sum(), x.to(torch.bfloat16))),
    "returned": Fn(lambda x: torch.max(x, dim=1)),
})
with watch(model, "pta") as watching:
    for module in model.values():
        before = module.fn(x)
        after = module(x)
        assert type(after) is type(before)
"""
    index, told = watched(tmp_path, script)
    assert told == []
    expected = {
        "plain": [""],
        "pair": [""],
        "late": ["", ".3"],
        "dual": ["", ".1"],
        "nested": ["", ".0.1", ".1.0"],
        "mapping": [".logits", ".3.0"],
        "data": [".hidden", ".scores.0", ".scores.1.deep"],
        "named": [".left", ".right.1"],
        "first": [".0.k", ".1"],
        "cache": [""],
        "scalar": ["", ".1"],
        "returned": ["", ".1"],
    }
    assert ids(index) == [name + end for name, ends in expected.items() for end in ends]
    assert values(index, "late.3") == values(index, "dual.1") == values(index, "nested.0.1")


def test_inputs_are_taken_before_the_module_writes_to_them(tmp_path: Path) -> None:
    script = """
buffer = torch.zeros(2)
def spoil(x, other=None, *, scale=None):
    x.add_(1)
    buffer.copy_(x)
    return buffer
class Named(nn.Module):
    def forward(self, hidden, other=None, **more):
        return hidden
model = nn.ModuleDict({"spoil": Fn(spoil), "named": Named(), "nothing": Fn(lambda x=None: torch.ones(1))})
with watch(model, "pta", inputs=True):
    y = torch.zeros(2)
    model["spoil"](y, torch.ones(1), scale=torch.ones(2))
    model["spoil"](y)
    model["named"](other=[x, (x,)], hidden=x, past_key_values=x)
    model["named"](x, mask=x)
    model["nothing"](None)
"""
    index, told = watched(tmp_path, script)
    assert told == []
    assert ids(index) == [
        "spoil.input",
        "spoil.input.1",
        "spoil.input.scale",
        "spoil",
        "spoil.input",
        "spoil",
        "named.input",
        "named.input.other.0",
        "named.input.other.1.0",
        "named",
        "named.input",
        "named.input.mask",
        "named",
        "nothing",
    ]
    assert values(index, "spoil.input") == [[0, 0], [1, 1]]
    assert values(index, "spoil") == [[1, 1], [2, 2]]


def test_tied_recursive_and_repeated_modules(tmp_path: Path) -> None:
    script = """
class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.me = self
        self.later = nn.ModuleList([self.a])
        self.c = nn.Linear(4, 4)
        self.c.weight = self.a.weight
        self.absent = None
        self.register_module("none", None)
    def forward(self, x, depth=2):
        return self.c(self.b(self.a(x))) if depth == 0 else self.me(x, depth - 1)
net = Loop()
with watch(net, "pta", include=["later.0", "forward", "c"]) as watching:
    net(x)
    assert watching.ids == {"forward": "forward", "a": "a", "c": "c"}, watching.ids
    assert watching.notes == (
        "'me' is the same module as 'forward' and is labelled as that",
        "'b' is the same module as 'a' and is labelled as that",
        "'later.0' is the same module as 'a' and is labelled as that",
    ), watching.notes
"""
    index, told = watched(tmp_path, script)
    assert told == []
    assert ids(index) == ["a", "a", "c", "forward", "forward", "forward"]
    assert [record.occurrence for record in index.records] == [0, 1, 0, 0, 1, 2]


def test_a_shared_module_is_labelled_under_the_name_that_it_has_where_it_is_called(tmp_path: Path) -> None:
    script = """
gelu = nn.GELU()
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), gelu
    def forward(self, x):
        return self.act(self.fc(x))
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.act = gelu
    def forward(self, x):
        for number in (2, 0, 1):
            x = self.blocks[number](x)
        return self.act(x)
model = Model()
with watch(model, "pta", include=["**.act", "act"], rename={"blocks.*": "layers.*"}) as watching:
    model(x)
    try: model.blocks[0](None)
    except TypeError: pass
    model(x)
    gelu(x)
    assert len(watching.notes) == 1 and "is also" in watching.notes[0], watching.notes
"""
    index, told = watched(tmp_path, script)
    assert told == []
    once = ["layers.2.act", "layers.0.act", "layers.1.act", "act"]
    assert ids(index) == [*once, *once, "layers.0.act"], "a call from elsewhere has the first name"


def test_calls_of_a_shared_module_under_names_that_are_not_wanted_are_not_labelled(tmp_path: Path) -> None:
    script = """
from aclcmp import set_label
gelu = nn.GELU()
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = gelu
    def forward(self, x):
        return self.act(x)
model = nn.Sequential(Block(), Block(), Block())
for chosen in ({"exclude": "0.*"}, {"exclude": "1.*"}, {"include": "1.act"}, {"include": ["2.act", "1.act"]}):
    with watch(model, "pta", **{"include": "?.act"} | chosen):
        model(x)
    set_label("pta", "--", x)
twins = Fn(lambda x: twins.b(x), a=gelu, b=gelu)
pair = nn.Sequential(twins)
with watch(pair, "pta", exclude="0.a"):
    pair(x)
"""
    index, told = watched(tmp_path, script)
    assert told == []
    labelled = " ".join(record.data_id for record in index.records)
    assert labelled == "1.act 2.act -- 0.act 2.act -- 1.act -- 1.act 2.act -- 0 forward"


def test_a_module_that_is_only_called_under_its_later_names_ran_and_a_copy_of_its_model_labels_nothing(
    tmp_path: Path,
) -> None:
    script = """
rotary = nn.Identity()
class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.rotary = rotary
    def forward(self, x):
        return self.rotary(x)
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rotary = rotary
        self.layers = nn.Sequential(Attention(), Attention())
    def forward(self, x):
        return self.layers(x)
model = Model()
with watch(model, "pta", include="**rotary"):
    model(x)
    copy.deepcopy(model)(x)
"""
    index, told = watched(tmp_path, script)
    assert told == []
    assert ids(index) == ["layers.0.rotary", "layers.1.rotary"]


def test_choosing_and_naming(tmp_path: Path) -> None:
    script = """
net = nn.ModuleDict({"enc": nn.ModuleList([Net(), Net()]), "pair": Fn(lambda x: (x, x), one=nn.Identity())})
net["pair"].add_module("1", nn.Identity())
def run():
    for layer in net["enc"]:
        layer(x)
    net["pair"](x)
    print("--", file=sys.stderr)
with watch(net, "pta", include="enc.*", rename={"enc.*": "model.layers.*"}): run()
with watch(net, "pta", include=re.compile(r"enc\\.\\d\\.a"), exclude="enc.0.*", prefix="p"): run()
with watch(net, "pta", include=("pair", "enc.0.b", "no.such"), exclude="pair.?"): run()
with watch(net, "pta", include="pair"): run()
with watch(net["enc"][1], "pta", prefix="enc.1", rename=lambda name: None if name == "a" else "z"): net["enc"][1](x)
try:
    with watch(net, "pta", include="enc.0"):
        net["enc"][0](torch.zeros(3))
except RuntimeError:
    pass
net["enc"][0](x)
refused(net, "pta", include="encoder.*")
refused(net, "pta", include="enc")
refused(net, "pta", exclude="**")
refused(net, "gpu")
refused(net, None)
refused([net], "pta")
refused(net, "pta", rename={"enc.*": "layer"})
refused(net, "pta", rename=lambda name: "")
refused(net, "pta", rename=lambda name: 3)
refused(net, "pta", include=[3])
assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
"""
    index, told = watched(tmp_path, script)
    assert ids(index) == [
        *("model.layers.0", "model.layers.1"),
        "p.enc.1.a",
        *("enc.0.b", "pair"),
        *("pair", "pair.out.1"),
        *("enc.1.z", "enc.1"),
    ]
    assert told == [
        *("--", "--"),
        "aclcmp: watch: no module with a forward is named like 'no.such'; nearest names: enc.0, enc.0.a, enc.0.b",
        *("--", "--"),
        "REFUSED watch: no module with a forward is named like 'encoder.*'; nearest names: enc.1, enc.0, enc.1.b",
        "REFUSED watch: no module with a forward is named like 'enc'; nearest names: enc.1, enc.0, enc.1.b",
        "REFUSED watch: nothing to watch: every module is excluded, or has no forward in Python",
        "REFUSED watch: side='gpu' is not a side; use 'pta' (golden), 'acl' (actual) or 'ref' (reference)",
        "REFUSED watch: side=None is not a side; use 'pta' (golden), 'acl' (actual) or 'ref' (reference)",
        "REFUSED watch: the model is a list, not a torch.nn.Module",
        "REFUSED watch: 'enc.0' and 'enc.1' both get the id 'layer'; change rename or exclude one",
        "REFUSED watch: 'enc.0' and 'enc.0.a' both get the id 'forward'; change rename or exclude one",
        "REFUSED watch: rename gives 3 for 'enc.0'; give a name, or None to skip it",
        "REFUSED 3 is not a pattern; use a glob like 'layers.*.mlp' or a compiled re.Pattern",
    ]


def test_modules_that_never_ran_are_told_at_close_and_at_exit(tmp_path: Path) -> None:
    script = """
net = nn.ModuleDict({f"m{n}": nn.Linear(4, 4) for n in range(9)})
with watch(net, "golden"):
    net["m0"](x)
try:
    with watch(net, "acl"):
        raise KeyError
except KeyError:
    pass
watch(net, "acl", include="m[01]")
net["m1"](x)
"""
    _, told = watched(tmp_path, script)
    why = "never ran, or ran in compiled code or a replayed device graph, where hooks do not fire"
    assert told == [
        f"aclcmp: watch, side 'pta': 8 of 9 watched modules {why}: m1, m2, m3, m4, m5 and 3 more",
        f"aclcmp: watch, side 'acl': 1 of 2 watched modules {why}: m0",
    ]


def test_a_script_that_fails_says_only_that(tmp_path: Path) -> None:
    failing = """
net = Net()
watch(net, "pta")
net.a(x)
raise KeyError("its own")
"""
    _, stderr = run_script(tmp_path, PREAMBLE + failing, ok=False)
    assert stderr.splitlines()[-1] == "KeyError: 'its own'"
    assert "aclcmp" not in stderr


def test_watching_twice_and_copies(tmp_path: Path) -> None:
    script = """
net = Net()
first = watch(net, "pta")
second = watch(net, "golden", inputs=True, include="a")
third = watch(net, "acl", include="a")
assert first.ids and second.ids == {"a": "a"} and third.ids
fourth = watch(net, "pta", include="b")
assert fourth.ids == {} and fourth.notes == ("'b': it is watched already on side 'pta': not labelled twice",)
net(x)
twin = copy.deepcopy(net)
twin(x)
pickle.loads(pickle.dumps(net))(x)
fourth.close(); third.close(); second.close(); first.close(); first.close()
again = watch(twin, "pta", include="b")
twin(x)
again.close()
with first: pass
"""
    index, told = watched(tmp_path, script)
    assert ids(index) == ["a.input", "a", "b", "forward", "b"]
    assert ids(index, "acl") == ["a"]
    assert told == ["aclcmp: watch, side 'pta': b: it is watched already on side 'pta': not labelled twice"]


def test_gradients_autocast_checkpointing_and_memory(tmp_path: Path) -> None:
    script = """
import gc, weakref
from torch.utils.checkpoint import checkpoint
net = Net()
watching = watch(net, "pta", include=["a", "b"], inputs=True)
plain = copy.deepcopy(net)
for reentrant in (True, False):
    for model in (net, plain):
        y = x.clone().requires_grad_()
        checkpoint(model, y, use_reentrant=reentrant).square().sum().backward()
        model.grad = y.grad
    assert torch.equal(net.grad, plain.grad)
    assert torch.equal(net.a.weight.grad, plain.a.weight.grad)
with torch.autocast("cpu", dtype=torch.bfloat16):
    assert net(x).dtype == torch.bfloat16
with torch.inference_mode():
    net(x)
with torch.no_grad():
    out = net(x)
    ref = weakref.ref(out)
    del out
    assert ref() is None, "an output is kept alive"
ref, watching = weakref.ref(net), None
del net, model
gc.collect()
assert ref() is None, "the model is kept alive"
"""
    index, told = watched(tmp_path, script)
    assert told == []
    assert ids(index) == ["a.input", "a", "b.input", "b"] * 5
    assert [record.dtype for record in index.records][9:11] == ["bfloat16", "bfloat16"]


def test_hooks_raise_only_when_strict(tmp_path: Path) -> None:
    script = """
class Odd(dict):
    def items(self): raise OSError("broken mapping")
class Hidden:
    pass
net = nn.ModuleDict({"odd": Fn(lambda x: Odd(a=x)), "sparse": Fn(lambda x: x.to_sparse()), "fine": Fn(lambda x: x)})
with watch(net, "pta"):
    for module in net.values():
        for _ in range(2):
            try:
                module(x)
            except LabelError as error:
                print("RAISED", error, file=sys.stderr)
"""
    loose, strict = tmp_path / "loose", tmp_path / "strict"
    loose.mkdir()
    strict.mkdir()
    index, told = watched(loose, script, strict=False)
    assert told[0] == "aclcmp: watch could not label what passes 'odd': OSError: broken mapping"
    assert "'sparse' (pta)" in told[1] and len(told) == 2
    assert [bool(record.error) for record in index.records] == [True, True, False, False]
    _, told = watched(strict, script)
    assert [line.startswith("RAISED") for line in told] == [False, False, True, True]


def test_call_sites_lead_to_the_model(tmp_path: Path) -> None:
    script = """
net = nn.Sequential(Fn(lambda x: x, inside=nn.Linear(4, 4)), nn.ReLU())
with watch(net, "pta"):
    net[0].inside(net(x))
"""
    index, _ = watched(tmp_path, script)
    sites = {record.data_id: record.call_site for record in index.records}
    assert sites["0"] == sites["0.inside"] == "<string>:16"
    assert sites["forward"] == sites["1"]
    assert "container.py:" in sites["1"]
