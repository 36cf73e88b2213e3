"""What is read of a paged cache: in whatever packing, through the table of blocks, each row as often as it changes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aclcmp.labeling.engines import vllm
from aclcmp.labeling.engines.contexts import Context, Texts
from aclcmp.labeling.engines.kv_cache import CachePoint, KvCache, element_order, names_by_layer
from aclcmp.labeling.engines.points import Point
from aclcmp.labeling.shard.shard_reader import read_label
from tests.engines.test_runners import Net, RunnerV2, scheduled, sealed, shards, watch

__all__ = ["shards"]
torch: Any = pytest.importorskip("torch")
BLOCKS, HEADS, SIZE, KEY, VALUE = 9, 3, 4, 6, 2
FEATURES = HEADS * (KEY + VALUE)
Write = Callable[[Any, Any, Any, Any], None]


def by_heads(key: Any, value: Any, cache: Any, slots: Any) -> None:
    """As FlashAttention's: [blocks, heads, block size, key and value]."""
    cache[slots // SIZE, :, slots % SIZE] = torch.cat([key, value], -1)


def transposed_keys(key: Any, value: Any, cache: Any, slots: Any) -> None:
    """As on CPUs: the keys of a block and head as [size, block size], then its values."""
    flat = cache.view(len(cache), HEADS, -1)
    for at, slot in enumerate(slots.tolist()):
        block, place = divmod(slot, SIZE)
        flat[block, :, : KEY * SIZE].view(HEADS, KEY, SIZE)[:, :, place] = key[at]
        flat[block, :, KEY * SIZE :].view(HEADS, SIZE, VALUE)[:, place] = value[at]


def halved_keys(key: Any, value: Any, cache: Any, slots: Any) -> None:
    by_heads(key / 2, value, cache, slots)


def layer_of(write: Write = by_heads, dtype: Any = None, **changed: Any) -> Any:
    cache = torch.zeros(BLOCKS, HEADS, SIZE, KEY + VALUE, dtype=dtype or torch.float32)
    impl = SimpleNamespace(do_kv_cache_update=lambda _layer, *args: write(*args))
    sizes = {"num_kv_heads": HEADS, "head_size": KEY, "head_size_v": VALUE, "sliding_window": None}
    fields = {"kv_cache": cache, "impl": impl, "dtype": cache.dtype, "layer_name": "0", **sizes}
    return SimpleNamespace(**fields | changed)


def put(layer: Any, slots: Sequence[int], seed: int) -> Any:
    """Write random rows; return them as [rows, features]."""
    rows = torch.from_numpy(np.random.default_rng(seed).standard_normal((len(slots), FEATURES))).to(layer.dtype)
    key, value = rows[:, : HEADS * KEY].reshape(-1, HEADS, KEY), rows[:, HEADS * KEY :].reshape(-1, HEADS, VALUE)
    layer.impl.do_kv_cache_update(layer, key, value, layer.kv_cache, torch.tensor(slots))
    return rows


@pytest.mark.parametrize("write", [by_heads, transposed_keys])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_place_of_each_number_is_found(write: Write, dtype: str) -> None:
    layer = layer_of(write, getattr(torch, dtype))
    rows = put(layer, range(2 * SIZE, 3 * SIZE), 1)
    assert torch.equal(layer.kv_cache[2].flatten()[element_order(layer)], rows)
    assert not layer.kv_cache[0].any(), "the cache itself is as it was"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: layer_of(halved_keys), "does not write each number to one place"),
        (lambda: layer_of(kv_cache=torch.zeros(2, 3, 4, 8, dtype=torch.uint8)), "kept as torch.uint8"),
        (lambda: layer_of(head_size=5), "are not known"),
        (lambda: layer_of(impl=SimpleNamespace()), "are not known"),
        (lambda: layer_of(kv_cache=[]), "a cache that is a list"),
    ],
)
def test_a_cache_that_is_not_known_is_refused(layer: Callable[[], Any], words: str) -> None:
    with pytest.raises(LookupError, match=words):
        element_order(layer())


class Cache:
    """The cache of one layer, whose labels are read back."""

    def __init__(self, *layers: Any) -> None:
        self.layer = layers[0]
        points = [CachePoint(f"layers.{number}.attn", each, "f:1", None, None) for number, each in enumerate(layers)]
        self._cache = KvCache(points)

    def label(self, contexts: Sequence[tuple[str, int]], *tables: Sequence[int]) -> None:
        texts = [Context(name, list(range(100, 100 + end)), end - 1) for name, end in contexts]
        table = torch.tensor([[*each, *[0] * (4 - len(each))] for each in tables])
        self._cache.label(texts, lambda _layer: table)


def labelled(folder: Path, name: str) -> list[tuple[list[tuple[str, int, int, int]], Any]]:
    """Return for each forward (request, position, token, block) of each row, and the values."""
    index = sealed(folder)
    found = []
    for record in index.records:
        if record.data_id == name and not record.error:
            table = index.rows[record.rows]
            assert table.blocks is not None
            rows = zip(table.numbers.tolist(), table.blocks.tolist(), strict=True)
            named = [(table.requests[request][1], at, token, block) for (request, at, token), block in rows]
            found.append((named, read_label(index, record)))
    return found


def test_rows_are_labelled_when_they_are_new_and_when_they_change(shards: Path) -> None:
    cache = Cache(layer_of(transposed_keys))
    prefix, tail, other = (put(cache.layer, slots, seed) for seed, slots in enumerate(([12, 13, 14, 15], [20], [4, 5])))
    cache.label([("a", 5), ("b", 2)], [3, 5], [1])  # the prefix of a was there before
    step = put(cache.layer, [21], 7)
    cache.label([("a", 6), ("b", 2)], [3, 5], [1])
    lost = put(cache.layer, [13], 8)
    cache.label([("a", 6)], [3, 5])
    cache.label([("b", 2), ("a", 6)], [3], [3, 5])  # b reads the block of a
    first, second, third, fourth = labelled(shards, "layers.0.attn.k_cache")
    assert first[0] == [
        *(("a", at, 100 + at, 3) for at in range(4)),
        ("a", 4, 104, 5),
        ("b", 0, 100, 1),
        ("b", 1, 101, 1),
    ]
    keys = slice(0, HEADS * KEY)
    assert np.array_equal(first[1], torch.cat([prefix, tail, other])[:, keys])
    assert second[0] == [("a", 5, 105, 5)] and np.array_equal(second[1], step[:, keys])
    assert third[0] == [("a", 1, 101, 3)] and np.array_equal(third[1], lost[:, keys])
    assert fourth[0] == [("b", 0, 100, 3), ("b", 1, 101, 3)]
    assert np.array_equal(fourth[1], torch.stack([prefix[0], lost[0]])[:, keys])


def test_of_a_window_only_the_rows_inside_are_read(shards: Path) -> None:
    cache = Cache(layer_of(sliding_window=3))
    put(cache.layer, range(4, 16), 1)
    cache.label([("a", 9)], [8, 2, 3])
    cache.label([("a", 10)], [8, 8, 3])  # the block before the window was given away
    first, second = labelled(shards, "layers.0.attn.v_cache")
    assert [at for _, at, _, _ in first[0]] == [6, 7, 8]
    assert [at for _, at, _, _ in second[0]] == [7, 9], "7 was looked at through a table that is wrong"


def test_a_cache_that_cannot_be_read_is_a_failed_label(shards: Path) -> None:
    cache = Cache(layer_of(halved_keys), layer_of())
    for end in (1, 2):
        cache.label([("a", end)], [1])
    index = sealed(shards)
    failed = {record.data_id: record.error for record in index.records if record.error}
    assert failed.keys() == {"layers.0.attn.k_cache", "layers.0.attn.v_cache"}
    assert "does not write each number to one place" in failed["layers.0.attn.k_cache"]
    assert [record.data_id for record in index.records if not record.error].count("layers.1.attn.k_cache") == 2


@pytest.mark.parametrize("block", [-1, BLOCKS])
def test_a_block_that_does_not_exist_is_never_read(shards: Path, block: int) -> None:
    cache = Cache(layer_of())
    cache.label([("a", 1)], [block])
    errors = {record.error for record in sealed(shards).records}
    assert errors == {f"its cache cannot be read: LookupError: the table names block {block} of {BLOCKS}"}


def test_the_tokens_of_a_context(capsys: pytest.CaptureFixture[str]) -> None:
    texts = Texts()
    told = [
        texts.contexts(["a", "b"], [0, 2, 4], [2, 3, 0, 1], [7, 8, 1, 2], {"a": [5, 6, 7, 8]}),
        texts.contexts(["b", "a"], [0, 1, 2], [2, 4], [3, 9], {"a": [5, 6, 7, 8]}),
        texts.contexts(["a"], [0, 1], [0], [1], {"a": [1, 2]}),  # another request of this name
        texts.contexts(["c"], [0, 1], [3], [1], {"c": []}),  # what is before was never seen
        texts.contexts(["d"], [0, 1], [3], [1], {"d": [1, 2]}),
    ]
    tokens = [{each.request: list(each.tokens) for each in contexts} for contexts in told]
    assert tokens == [
        {"a": [5, 6, 7, 8], "b": [1, 2]},
        {"b": [1, 2, 3], "a": [5, 6, 7, 8, 9]},
        {"a": [1]},
        {"c": []},
        {"d": []},
    ]
    assert capsys.readouterr().err.count("not all tokens of request 'c' are known: its KV cache is not labelled") == 1


def test_names_of_layers() -> None:
    names = ["model.layers.10.self_attn.k_cache", "transformer.h.2.attn.v_cache", "model.layers.3.mlp", "k_cache"]
    assert names_by_layer(names) == {10: {"k_cache": names[0]}, 2: {"v_cache": names[1]}}


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A layer whose cache a runner has."""
    layer = layer_of()
    monkeypatch.setattr(
        vllm, "kv_cache_of", lambda *_: KvCache([CachePoint("layers.0.attn", layer, "f:1", None, None)])
    )
    monkeypatch.setattr(vllm, "block_table_of", lambda _: torch.tensor([[2, 4], [1, 0]]))
    yield layer


def test_the_cache_of_a_v2_runner(shards: Path, monkeypatch: pytest.MonkeyPatch, cached: Any) -> None:
    model = Net()
    runner = RunnerV2(model)
    watch(monkeypatch, runner, Point("vllm", "layer", model.layer))
    put(cached, range(4, 20), 1)
    runner.execute_model(scheduled([("dummy", 0, [1, 2])]), dummy_run=True)
    prompts = {"0-0123abcd": [5, 6, 7, 8, 9], "1-0123abcd": [3]}
    runner.execute_model(scheduled([("0-0123abcd", 4, [9]), ("1-0123abcd", 0, [3])], 2, prompts))
    ((rows, _),) = labelled(shards, "layers.0.attn.k_cache")
    assert rows == [*(("0", at, 5 + at, 2) for at in range(4)), ("0", 4, 9, 4), ("1", 0, 3, 1)]


def test_a_graph_of_the_whole_model_is_told(
    shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cached: Any
) -> None:
    model = Net()
    runner = RunnerV2(model)
    watch(monkeypatch, runner, Point("vllm", "layer", model.layer))
    forwards = [scheduled([("0", position, [5])]) for position in range(2)]
    monkeypatch.setattr(runner, "model", lambda *_: None)  # a replay calls no module
    for each in forwards:
        runner.execute_model(each)
    assert capsys.readouterr().err.count("not labelled in forwards that replay a graph of the whole model") == 1
