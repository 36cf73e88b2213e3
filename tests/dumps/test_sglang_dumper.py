"""Folders in the format of SGLang's dumper, and its words for layouts."""

from pathlib import Path
from typing import Any

import pytest

from aclcmp.labeling.layout import Partial, Replicate
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, ForeignFormatError
from aclcmp.orchestrator.dumps.axis_splits import AxisSplit
from aclcmp.orchestrator.dumps.registry import read_dump
from aclcmp.orchestrator.dumps.sglang_dims import DimsError, parse_dims
from tests.dumps.atb_writer import values
from tests.dumps.samples import by_name, read, reasons, tensors

torch = pytest.importorskip("torch")


def dump(
    folder: Path,
    value: Any,
    name: str,
    *,
    rank: int = 0,
    number: int = 1,
    step: int = 0,
    world: int = 1,
    parallel: dict[str, Any] | None = None,
    dims: str | None = None,
    kind: str = "sglang",
    **tags: Any,
) -> None:
    """Write one call as the dumper does: its tags are the name of the file, and are in the meta."""
    folder.mkdir(parents=True, exist_ok=True)
    full = {"step": step, "rank": rank, "dump_index": number, "name": name, "recompute_status": "disabled", **tags}
    meta = {**full, "world_rank": rank, "world_size": world}
    meta |= {f"{kind}_parallel_info": parallel} if parallel else {}
    meta |= {"dims": dims} if dims else {}
    torch.save({"value": value, "meta": meta}, folder / ("___".join(f"{k}={v}" for k, v in full.items()) + ".pt"))


def test_names_order_steps_and_ranks(tmp_path: Path) -> None:
    folder = tmp_path / "dump_20250101_000000_123456"
    for rank in (0, 1):
        number = 0
        for step in (0, 1):
            for layer in (9, 10):
                number += 1
                dump(
                    folder,
                    torch.full((2,), 1.0 * layer),
                    "attn_out",
                    rank=rank,
                    number=number,
                    step=step,
                    world=2,
                    layer_id=layer,
                )
            number += 1
            dump(folder, torch.arange(3), "input_ids", rank=rank, number=number, step=step, world=2)
    for where in (folder, tmp_path):
        index = read_dump(where, "acl", tmp_path.parent / "unused")
        assert index is not None and index.tool == "SGLang's dumper" and index.notes == ()
        for rank in (0, 1):
            for step in (0, 1):
                found = by_name(index, rank, step)
                assert list(found) == ["attn_out.layer_id=9", "attn_out.layer_id=10", "input_ids"]
                assert values(found["attn_out.layer_id=10"]).tolist() == [10, 10]


def test_older_names_bare_tensors_and_dicts(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    torch.save(torch.ones(2), folder / "forward_pass_id=3___rank=0___name=x___dump_index=1.pt")
    torch.save(
        {"value": {"a": torch.ones(1), "b": [torch.zeros(1)]}}, folder / "step=3___rank=0___dump_index=2___name=y.pt"
    )
    torch.save({"value": ["r1", "r2"], "meta": {}}, folder / "step=3___rank=0___dump_index=3___name=rids.pt")
    torch.save(
        {"value": torch.ones(1), "meta": {"t": torch.ones(9)}},
        folder / "step=3___rank=0___dump_index=4___name=a___b.pt",
    )
    torch.save(torch.ones(1), folder / "other.pt")
    index = read(folder)
    assert list(by_name(index, task=3)) == ["x", "y.a", "y.b.0", "a___b"]
    assert index.notes == ("dumps of what is no tensor are left out (1 of them)",)


def test_repeated_calls_are_occurrences(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        dump(tmp_path / "d", torch.full((1,), 1.0 * number), "x", number=number)
    found = list(tensors(read(tmp_path / "d")))
    assert [(record.data_id, record.occurrence) for _, record, _ in found] == [("x", 0), ("x", 1), ("x", 2)]
    read_back = [values(tensor).tolist() for _, _, tensor in found if isinstance(tensor, DumpedTensor)]
    assert read_back == [[1], [2], [10]]


def test_lost_ranks_and_refused_files(tmp_path: Path) -> None:
    dump(tmp_path / "d", torch.ones(1), "x", world=4)
    (tmp_path / "d" / "step=0___rank=2___dump_index=5___name=y.pt").write_bytes(b"PK\3\4")
    index = read(tmp_path / "d")
    assert index.notes == ("d: no dump of rank 1, 3 of 4",) and list(reasons(index)) == ["y"]
    assert {each.header.world_size for each in index.indices} == {4}


def test_two_dumps_are_not_mixed(tmp_path: Path) -> None:
    dump(tmp_path / "d" / "dump_1", torch.ones(1), "x")
    dump(tmp_path / "d" / "dump_2", torch.ones(1), "x")
    with pytest.raises(ForeignFormatError, match="dump_1 and dump_2; name one of them"):
        read_dump(tmp_path / "d", "pta", tmp_path / "s")
    dump(tmp_path / "hosts" / "a", torch.ones(1), "x", rank=0, world=2)
    dump(tmp_path / "hosts" / "b", torch.ones(1), "x", rank=1, world=2)
    assert len(read(tmp_path / "hosts").indices) == 2


def test_layouts_by_dims_and_parallel_sizes(tmp_path: Path) -> None:
    for rank in range(4):
        tp, cp = rank % 2, rank // 2
        sizes = {"tp_rank": tp, "tp_size": 2, "cp_rank": cp, "cp_size": 2, "pp_rank": 0, "pp_size": 1}
        args: dict[str, Any] = {"rank": rank, "world": 4, "parallel": sizes, "kind": "megatron"}
        for number, (name, dims, shape) in enumerate(
            [
                ("columns", "t h[tp]", (2, 3 + tp)),
                ("both", "b s[cp] (heads*dim)[tp] # dp:=moe_dp", (1, 5, 4)),
                ("nested", "s[cp,tp] h", (2, 3)),
                ("sum", "t h[tp:partial] # cp:replicated", (2, 3)),
                ("same", "t h", (2, 3)),
                ("zigzag", "s[cp:zigzag] h", (2, 3)),
                ("wrong", "t h[tp]", (2, 3, 4)),
                ("nothing", None, (2, 3)),
            ],
            1,
        ):
            dump(tmp_path / "d", torch.zeros(shape), name, number=number, dims=dims, **args)
    index = read(tmp_path / "d")
    layouts = {(rank, record.data_id): record.layout for rank, record, _ in tensors(index)}
    for rank in range(4):
        tp, cp = rank % 2, rank // 2
        names = ("columns", "both", "nested", "sum", "same", "zigzag")
        columns, both, nested, summed, same, zigzag = (layouts[rank, name] for name in names)
        assert columns and both and nested and summed and same and zigzag
        assert (columns.brief, columns.whole_shape) == ("Replicate(), Shard(dim=1)", (2, 7))
        assert columns.spans == (((0, 2),), ((3 * tp, 3 + tp),))
        assert (both.brief, both.whole_shape) == ("Shard(dim=1), Shard(dim=2)", (1, 10, 8))
        assert both.spans == (((0, 1),), ((5 * cp, 5),), ((4 * tp, 4),))
        assert (nested.whole_shape, nested.spans) == ((8, 3), (((2 * rank, 2),), ((0, 3),)))
        assert summed.spans is None
        assert summed.placements == (Replicate(range(tp, 4, 2)), Partial(range(2 * cp, 2 * cp + 2)))
        assert same.is_replicate and len(same.placements) == 2
        assert (zigzag.brief, zigzag.whole_shape) == ("Replicate(), Shard(dim=0, zigzag=True)", (4, 3))
        assert zigzag.spans == (((cp, 1), (3 - cp, 1)), ((0, 3),))
        assert not any(layouts[rank, name] for name in ("wrong", "nothing"))
    assert sum("name 2 dimensions" in note for note in index.notes) == 1


def test_a_lost_rank_leaves_the_others_their_places(tmp_path: Path) -> None:
    for rank in (1, 3):
        sizes = {"tp_rank": rank, "tp_size": 4}
        dump(tmp_path / "d", torch.zeros(2, 3), "x", rank=rank, world=4, parallel=sizes, dims="t h[tp]")
    (layouts,) = (
        {
            (record.layout.spans, record.layout.whole_shape)
            for rank, record, _ in tensors(read(tmp_path / "d"))
            if record.layout and rank == 3
        },
    )
    assert layouts == {((((0, 2),), ((9, 3),)), (2, 12))}


def test_one_rank_needs_no_layout(tmp_path: Path) -> None:
    dump(tmp_path / "d", torch.zeros(2, 3), "x", parallel={"tp_rank": 0, "tp_size": 1}, dims="t h[tp]")
    ((_, record, _),) = tensors(read(tmp_path / "d"))
    assert record.layout is None


AXES = {"tp": (1, 2), "cp": (0, 2)}


@pytest.mark.parametrize(
    ("words", "splits"),
    [
        ("t h", (AxisSplit(1, 2), AxisSplit(0, 2))),
        ("t h[tp]", (AxisSplit(0, 2), AxisSplit(1, 2, 1))),
        ("t[cp] h[tp]", (AxisSplit(0, 2, 0), AxisSplit(1, 2, 1))),
        ("t h[cp,tp]", (AxisSplit(0, 2, 1), AxisSplit(1, 2, 1))),
        ("t h[tp:sharded]", (AxisSplit(0, 2), AxisSplit(1, 2, 1))),
        ("t h[tp:natural,cp:partial]", (AxisSplit(1, 2, 1), AxisSplit(0, 2, summed=True))),
        ("1 (a*b)[tp] # cp:replicated dp:=x", (AxisSplit(0, 2), AxisSplit(1, 2, 1))),
        ("t (a * b)[ tp ]", (AxisSplit(0, 2), AxisSplit(1, 2, 1))),
        ("t h[ep]", (AxisSplit(1, 2), AxisSplit(0, 2))),
        ("t h[cp:zigzag]", (AxisSplit(1, 2), AxisSplit(0, 2, 1, zigzag=True))),
    ],
)
def test_words(words: str, splits: tuple[AxisSplit, ...]) -> None:
    assert parse_dims(words, 2, AXES) == splits


def test_sequence_parallel_ranks_are_the_tensor_parallel_ones() -> None:
    axes = {"tp": (1, 2), "sp": (1, 2)}
    assert parse_dims("s[sp] h", 2, axes) == (AxisSplit(1, 2, 0),)
    assert parse_dims("s h[tp]", 2, axes) == (AxisSplit(1, 2, 1),)


@pytest.mark.parametrize(
    "words",
    [
        *(
            "",
            "t",
            "t h d",
            "t h[",
            "t h[tp",
            "t h[]",
            "t h[xx]",
            "t[tp] h[tp]",
            "t h[tp:odd]",
            "t h[cp:zigzag+partial]",
        ),
        *("t h-d", "t h # tp", "t h # xx:replicated", "t (a)", "t (a*)", "2 h", "t h[tp]x", "t ((a*b)*c)"),
        *("[" * 50_000, "(" * 50_000, "(" * 900, "t h #" + " tp" * 50_000),
    ],
)
def test_words_that_are_refused(words: str) -> None:
    with pytest.raises(DimsError):
        parse_dims(words, 2, AXES)
