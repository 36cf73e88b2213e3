"""Labels in code that torch compiles, traces, transforms or captures: recorded, or skipped and told; never raised."""

from pathlib import Path

import pytest

from aclcmp.labeling.shard.record import LabelRecord
from tests.labeling.test_api import run_script

pytestmark = pytest.mark.model

PREAMBLE = """
import sys, torch
from aclcmp import Shard, gen_id, perturb, set_label, set_task_id
x = torch.arange(6.0).reshape(2, 3)
def f(x):
    y = torch.tanh(x)
    set_label("acl", "y", y, layout=Shard(-1), inputs=["x"])
    return y * 2
want = torch.tanh(x) * 2
def same(y):
    assert torch.equal(y, want), y
"""
QUIET = "import warnings\nwarnings.simplefilter('ignore')\n"
CLOSED = "it is in a compiled graph that must not break (fullgraph=True, torch.export, torch.cond, torch.func)"


def labelled(folder: Path, script: str, *, strict: bool = False, **env: str) -> tuple[list[LabelRecord], list[str]]:
    """Run a script after the preamble, with warnings as errors; return its labels and the lines of its stderr."""
    index, stderr = run_script(folder, PREAMBLE + script, strict=strict, ok=True, **env, PYTHONWARNINGS="error")
    return [record for each in index for record in each.records], stderr.splitlines()


def test_a_graph_that_may_break_records_every_call(tmp_path: Path) -> None:
    """Without a warning: dynamo is kept from compiling the recorder."""
    script = """
import torch.utils.checkpoint
for fn in (f, lambda x: torch.utils.checkpoint.checkpoint(f, x, use_reentrant=False)):
    torch._dynamo.reset()
    compiled = torch.compile(fn, backend="eager")
    for _ in range(2):
        same(compiled(x))
"""
    records, told = labelled(tmp_path, script, strict=True)
    assert [(r.data_id, r.occurrence, r.shape, r.error) for r in records] == [("y", k, (2, 3), "") for k in range(4)]
    assert {r.call_site for r in records} == {"<string>:7"} and told == []


def test_a_graph_that_must_not_break_has_no_labels(tmp_path: Path) -> None:
    script = (
        QUIET
        + """
def g(x):
    set_task_id()
    for i in range(2):
        set_label("pta", f"in.{i}.{x.shape[0]}", x)
    set_label("acl", "low", tensor_path="a/b.bin")
    gen_id()
    return f(x)
for backend in ("eager", "aot_eager"):
    torch._dynamo.reset()
    compiled = torch.compile(g, backend=backend, fullgraph=True, dynamic=True)
    for _ in range(3):
        same(compiled(x))
class M(torch.nn.Module):
    def forward(self, x):
        return g(x)
exported = torch.export.export(M(), (x,), strict=True)
same(exported.module()(x))
assert len(exported.graph.nodes) == 4
"""
    )
    records, told = labelled(tmp_path, script)
    ids = ["set_task_id", "in.0.2", "in.1.2", "low", "y"]
    assert [(r.data_id, r.side, r.occurrence) for r in records] == [
        (name, side, 0) for name, side in zip(ids, ["", "pta", "pta", "acl", "acl"], strict=True)
    ]
    assert all(r.error.startswith(CLOSED) and "torch.compiler.disable" in r.error for r in records)
    assert records[-1].call_site == "<string>:7" and records[0].call_site == "<string>:16"
    assert len(told) == 1 and told[0].startswith("aclcmp: label 'set_task_id' (no side) at <string>:16 failed")


def test_parts_of_a_breaking_graph_that_must_not_break(tmp_path: Path) -> None:
    script = (
        QUIET
        + """
def region(x):
    with torch._dynamo.error_on_graph_break(True):
        return f(x)
for fn in (
    lambda x: torch.cond(x.sum() > 0, f, f, (x,)),
    lambda x: torch.func.vmap(f)(x),
    lambda x: torch.func.jvp(f, (x,), (x,))[0],
    region,
):
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(fn, backend="eager")(x), want)
torch._dynamo.reset()
assert torch.compile(torch.func.grad(lambda x: f(x).sum()), backend="eager")(x).shape == x.shape
"""
    )
    records, told = labelled(tmp_path, script)
    assert [(r.data_id, r.side) for r in records] == [("y", "acl")] and records[0].error.startswith(CLOSED)
    assert len(told) == 1


def test_what_a_strict_run_asks_for(tmp_path: Path) -> None:
    script = """
try:
    torch.compile(f, backend="eager", fullgraph=True)(x)
except Exception as error:
    assert "that must not break" in str(error)
    print("raised", file=sys.stderr)
"""
    _, told = labelled(tmp_path, script, strict=True)
    assert told[-1] == "raised"


def test_labels_that_are_not_wanted_are_not_told(tmp_path: Path) -> None:
    script = "same(torch.compile(f, backend='eager', fullgraph=True)(x))"
    (tmp_path / "shards").mkdir()
    assert labelled(tmp_path / "shards", script, ACLCMP_LABELS="other") == ([], [])


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("same(torch.jit.trace(f, x, check_trace=False)(x))", "torch.jit.trace"),
        (
            "class M(torch.nn.Module):\n    def forward(self, x):\n        return f(x)\n"
            "exported = torch.export.export(M(), (x,), strict=False)\nsame(exported.module()(x))\n"
            "assert len(exported.graph.nodes) == 4",
            "torch.export or make_fx",
        ),
        (
            "from torch.fx.experimental.proxy_tensor import make_fx\n"
            "made = make_fx(f)(x)\nsame(made(x))\nassert len(made.graph.nodes) == 4",
            "torch.export or make_fx",
        ),
        ("same(torch.func.vmap(f)(x))", "torch.func"),
        ("same(torch.func.vjp(f, x)[0])", "torch.func"),
        (
            "from torch._subclasses.fake_tensor import FakeTensorMode\nmode = FakeTensorMode()\n"
            "assert f(mode.from_tensor(x)).shape == x.shape",
            "FakeTensorMode",
        ),
        (
            "from torch._subclasses.fake_tensor import FakeTensorMode\n"
            "with FakeTensorMode(allow_non_fake_inputs=True):\n    set_label('acl', 'y', x)",
            "FakeTensorMode",
        ),
        ("assert f(x.to('meta')).shape == x.shape", "meta"),
        ("same(torch.fx.symbolic_trace(f)(x))", "Proxy"),
    ],
    ids=("trace", "export", "make_fx", "vmap", "vjp", "fake", "fake mode", "meta", "fx"),
)
def test_traced_transformed_and_fake(tmp_path: Path, script: str, why: str) -> None:
    """What is traced has none of our operations in it."""
    records, told = labelled(tmp_path, QUIET + script)
    assert len(told) == 1 and why in told[0]
    assert records and all(r.data_id == "y" and r.side == "acl" and why in r.error for r in records)


def test_scripted(tmp_path: Path) -> None:
    script = f"""{QUIET}
from scripted_model import f, name, moved
for fn in (f, name, moved):
    same(torch.jit.script(fn)(x))
torch.jit.script(f).save({str(tmp_path / "f.pt")!r})
same(torch.jit.load({str(tmp_path / "f.pt")!r})(x))
"""
    (tmp_path / "scripted_model.py").write_text(
        """
import torch
from aclcmp import gen_id, perturb, set_label, set_task_id
def f(x):
    set_task_id()
    set_label("acl", "y", x, None, level="op", inputs=["x"], task=0, rows=None)
    return torch.tanh(x) * 2
def name(x):
    set_label("acl", gen_id(), data_val=x)
    return torch.tanh(x) * 2
def moved(x):
    return torch.tanh(perturb(x)) * 2
"""
    )
    (tmp_path / "shards").mkdir()
    records, told = labelled(tmp_path / "shards", script, PYTHONPATH=str(tmp_path), ACLCMP_PERTURB="1")
    assert [(r.data_id, r.side) for r in records] == [("torch.jit.script", "")]
    assert len(told) == 2 and all("it is in code of torch.jit.script" in line for line in told)
    run_script(tmp_path / "off", PREAMBLE + script, PYTHONPATH=str(tmp_path), ACLCMP_SHARD_DIR="")


def test_perturb_in_a_graph_that_must_not_break(tmp_path: Path) -> None:
    script = """
def g(x):
    return perturb(x) * 2
x = torch.rand(1000)
for full in (True, False):
    torch._dynamo.reset()
    y = torch.compile(g, backend="eager", fullgraph=full)(x)
    assert torch.equal(y, x * 2) == full
"""
    _, told = labelled(tmp_path, QUIET + script, ACLCMP_PERTURB="1")
    assert told == [f"aclcmp: perturb leaves a Tensor as it is: {CLOSED}"]


@pytest.mark.parametrize("device", ["cuda", "npu"])
def test_capture_is_asked_for_before_anything_is_copied(device: str) -> None:
    """No device here: what torch says of its stream is given, as torch.cuda and torch_npu name it."""
    import types

    import torch

    from aclcmp.labeling.graphs import reason_not_copyable

    value = types.SimpleNamespace(device=types.SimpleNamespace(type=device))
    for capturing in (True, False):
        stream = types.SimpleNamespace(is_current_stream_capturing=lambda capturing=capturing: capturing)
        asked = types.SimpleNamespace(_C=torch._C, compiler=torch.compiler, **{device: stream})
        assert ("while a device graph is captured" in reason_not_copyable(asked, value)) == capturing
    assert reason_not_copyable(torch, torch.ones(2)) == ""


def test_off_means_off_in_graphs_too(tmp_path: Path) -> None:
    script = """
def g(x):
    set_task_id()
    return torch.tanh(perturb(f(x) / 2).atanh()) * 2
for full in (True, False):
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(g, backend="eager", fullgraph=full)(x / 9), torch.tanh(x / 9) * 2)
"""
    (tmp_path / "shards").mkdir()
    assert run_script(tmp_path / "shards", PREAMBLE + script, ACLCMP_SHARD_DIR="") == ([], "")
