"""The golden side of an engine's run: transformers computes the very tokens that the engine computed, with rows named.

    python -m aclcmp.labeling.engines.golden SHARDS MODEL [--price] [--original DIR]

`aclcmp golden` starts it with the launcher's environment. Requests run one at a time, each in one forward, so that
golden follows the engine's tokens and needs no cache. Of half precision the reference, in float32, comes along. Of a
quantised checkpoint both compute what its scheme says, and its price is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aclcmp.labeling.api import name_tokens, record_at, record_price, rows
from aclcmp.labeling.capture import Capture
from aclcmp.labeling.engines.families import FAMILIES, HEAD_NORMS, TUPLES, Family
from aclcmp.labeling.engines.kv_cache import KEYS, VALUES, names_by_layer
from aclcmp.labeling.engines.original import Original, read_original
from aclcmp.labeling.engines.parted_tokens import PartedTokens, record_margins
from aclcmp.labeling.engines.price import measure_price
from aclcmp.labeling.engines.quantised import perturbed, quantised_only
from aclcmp.labeling.errors import AclcmpError
from aclcmp.labeling.layout import divisors
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.labeling.shard.weight_table import WeightTable
from aclcmp.labeling.watch import watch
from aclcmp.labeling.weights import hash_weights, wanted_of

_LOGITS = "lm_head"
_INPUT = ".input"
_LIKELY = 16
"""Golden's best tokens of a row whose texts are recorded."""
SAMPLES = 3
"""How often the reference of a quantised model is computed: a row of massive activations may be rounded by chance."""
_BLANK = "\u2581"
"""With it SentencePiece writes a blank, which is left out where a text begins."""
ERROR = "aclcmp: error: "
PROGRESS = "golden: "
"""Begins each line of progress, which `aclcmp golden` shows."""


@dataclass(slots=True)
class RecordedRequest:
    """One request of a run: its tokens by position, and the positions of which the engine computed logits."""

    name: str
    tokens: dict[int, int] = field(default_factory=dict)
    logits: set[int] = field(default_factory=set)
    prompt: int = 0
    """How many tokens its prompt has, as far as that is known, else 0."""

    def in_order(self) -> Iterator[int]:
        """Yield the tokens."""
        yield from (self.tokens[position] for position in range(len(self.tokens)))


def main(arguments: list[str]) -> int:
    """Run the golden side; return the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shards", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--price", action="store_true")
    parser.add_argument("--original", type=Path)
    told = parser.parse_args(arguments)
    shards = told.shards
    try:
        indices = list(_readable(shards))
        requests = list(recorded_requests(indices))
        labels = {
            record.data_id: record.dtype
            for index in indices
            for record in index.records
            if record.side == "acl" and record.rows >= 0
        }
        if any(record.side == "pta" for index in indices for record in index.records):
            raise AclcmpError(f"{shards.parent} has a golden side already; compare it: aclcmp compare {shards.parent}")
        if not requests or not labels:
            why = next((record.error for index in indices for record in index.records if record.error), "")
            why = f": its labels failed: {why}" if why else ": was it recorded in an engine?"
            raise AclcmpError(f"{shards.parent} holds no label with rows{why}")
        summarised = {each.data_id for index in indices for each in index.records if each.capture != Capture.FULL.value}
        weights = [(index.header.world_size, table) for index in indices for table in index.weights]
        original = read_original(told.model, told.original)
        _run(original, requests, labels, weights, summarised, price_by_layer=told.price)
    except AclcmpError as error:
        print(f"{ERROR}{error}", file=sys.stderr)
        return 2
    return 0


def _readable(shards: Path) -> Iterator[ShardIndex]:
    """Yield the shards that can be read, and say which cannot: every rank tells the requests. Raises the last error."""
    error: AclcmpError | None = None
    one = None
    for files in shards_in(shards):
        try:
            yield (one := read_shard(files))
        except AclcmpError as why:
            error = why
            print(f"{PROGRESS}{why}", flush=True)
    if one is None and error is not None:
        raise error


def recorded_requests(indices: list[ShardIndex]) -> Iterator[RecordedRequest]:
    """Yield the requests of a run, in the order in which they came; those with unknown tokens are left out."""
    found: dict[tuple[int, str], RecordedRequest] = {}
    for index in indices:
        of_logits = {record.rows for record in index.records if record.data_id == _LOGITS}
        for number, table in index.rows.items():
            for place, tokens in table.tokens_of_requests():
                name = table.requests[place]
                if name not in found:
                    prompt = table.prompts.get(place, ())
                    found[name] = RecordedRequest(name[1], dict(enumerate(prompt)), prompt=len(prompt))
                found[name].tokens |= tokens
                if number in of_logits:
                    found[name].logits |= tokens.keys()
    for request in found.values():
        if sorted(request.tokens) == list(range(len(request.tokens))) and min(request.tokens.values()) >= 0:
            yield request
        else:
            _say(f"request {request.name!r} is left out: not all of its tokens are known")


def _run(
    original: Original,
    requests: list[RecordedRequest],
    labels: Mapping[str, str],
    weights: Sequence[tuple[int, WeightTable]],
    summarised: Collection[str],
    *,
    price_by_layer: bool,
) -> None:
    """Run the model over all requests, in the engine's precision, and in float32 as the reference of a lower one.

    `weights` are what the engine's ranks hold, each with how many ranks there were: golden's are hashed as these need.
    `summarised` are the labels of which the engine's ranks kept only summaries.
    """
    import torch

    dtypes = sorted({dtype for dtype in labels.values() if dtype in ("bfloat16", "float16")})
    sides = {"pta": getattr(torch, dtypes[0]) if dtypes else torch.float32}
    if dtypes or original.rounds_inputs:
        sides["ref"] = torch.float32 if dtypes else torch.float64
    path, checkpoint, cached = original.path, original.checkpoint, names_by_layer(labels)
    occurring = {token for request in requests for token in request.tokens.values()}
    parted = PartedTokens()
    for side, dtype in sides.items():
        model = original.load(dtype)
        if weights and dtype is torch.float32:  # casts of the weights in their own precision are recognised
            widths, types = wanted_of(table for _, table in weights)
            parts = divisors(max(ranks for ranks, _ in weights))
            hash_weights(checkpoint or model, side, widths=widths, dtypes=types, parts=parts)
        if checkpoint is not None and dtype is torch.float32:
            texts = [list(request.in_order()) for request in requests]
            _record_price(model, original, texts, by_layer=price_by_layer)
        hooks = ExitStack()
        partners = _watch(model, side, labels, hooks)
        of_side = "" if side == "pta" else f"{side}: "
        _say(f"{of_side}{path.name} in {dtype}: {len(partners)} of {len(labels)} labels have a module")
        if side == "pta" and (alone := sorted(set(labels) - partners)):
            _say(f"no module of the original for {', '.join(alone[:8])}{' ...' * (len(alone) > 8)}")
        for sample in range(SAMPLES if side == "ref" and checkpoint else 1):
            with perturbed(model, sample, precision=next(iter(sides.values()))) if sample else nullcontext():
                for number, request in enumerate(requests, start=1):
                    logits = _compute(model, side, request, cached, with_logits=_LOGITS in labels)
                    if logits is not None:
                        at = sorted(request.logits)
                        occurring.update(logits[at].topk(min(_LIKELY, logits.shape[-1])).indices.unique().tolist())
                    if logits is not None and side == "pta":
                        parted.add(request.name, request.tokens, [p for p in at if p + 1 >= request.prompt], logits)
                    of_sample = f"sample {sample + 1}, " if sample else ""
                    _say(f"{of_side}{of_sample}request {number} of {len(requests)}, {len(request.tokens)} tokens")
        hooks.close()
    if _LOGITS in labels:  # the last model is the one of float32; what is rounded has no gradient
        with quantised_only(checkpoint.layers, ()) if checkpoint else nullcontext():
            record_margins(model, parted, partners - {*summarised}, _say)
    if words := _token_texts(path, sorted(occurring)):
        name_tokens(words)


def _compute(
    model: Any, side: str, request: RecordedRequest, cached: Mapping[int, Mapping[str, str]], *, with_logits: bool
) -> Any:
    """Compute a request, which labels it; return its logits [tokens, vocabulary], None where the engine has none."""
    import torch

    tokens, at = list(request.in_order()), sorted(request.logits)
    cache = {"past_key_values": _labelled_cache(side, cached)} if cached else {}
    with torch.inference_mode(), rows(request.name, np.arange(len(tokens)), tokens):
        output = model(torch.tensor([tokens]), use_cache=bool(cache), **cache)
    if not at or not with_logits:
        return None
    with rows(request.name, at, [tokens[position] for position in at]):
        record_at("transformers:lm_head", side, _LOGITS, output.logits[0][at])
    return output.logits[0]


def _record_price(model: Any, original: Original, texts: Sequence[Sequence[int]], *, by_layer: bool) -> None:
    assert original.checkpoint is not None
    layers = original.checkpoint.layers
    price = measure_price(model, layers, texts, original.scheme, by_layer=by_layer, say=_say)
    if price is None:
        _say(f"{original.path.name} is {original.scheme}: what its weights cost is measured with --original")
    else:
        record_price(price)


def _token_texts(path: Path, tokens: Sequence[int]) -> dict[int, str]:
    """Return the text of each token, {} where the model's folder has no tokenizer."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        return {token: _token_text(tokenizer, token) for token in tokens}
    except Exception as error:  # whatever a tokenizer raises: ids say the same
        _say(f"{path.name} has no tokenizer that can be read ({type(error).__name__}): tokens are told by their ids")
        return {}


def _token_text(tokenizer: Any, token: int) -> str:
    """Return the text of a token as it stands within a text."""
    text, piece = str(tokenizer.decode([token])), str(tokenizer.convert_ids_to_tokens(token))
    return f" {text}" if piece.startswith(_BLANK) and not text.startswith(" ") else text


def _say(text: str) -> None:
    print(f"{PROGRESS}{text}", flush=True)


def _watch(model: Any, side: str, labels: Mapping[str, str], hooks: ExitStack) -> set[str]:
    """Watch the modules of which the engine has labels until `hooks` close; return the labels that have one."""
    modules = dict(model.named_modules())
    wanted: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        name = label.removesuffix(_INPUT)
        if name in modules and label != _LOGITS:
            wanted[name].add(label)
    named = {label for found in wanted.values() for label in found}
    family = FAMILIES.get(type(model).__name__, Family())
    for name in [each for each in wanted if each.rpartition(".")[2] in HEAD_NORMS]:
        label_heads = _label_heads(side, name, name.rpartition(".")[2] in family.heads_first)
        hooks.callback(modules[name].register_forward_hook(label_heads).remove)
        del wanted[name]
    both = [name for name, found in wanted.items() if f"{name}{_INPUT}" in found]
    alone = [name for name, found in wanted.items() if f"{name}{_INPUT}" not in found]
    more = [f"{name}.{place}" for name in wanted for place in range(1, TUPLES.get(name.rpartition(".")[2], 0) + 1)]
    if both:
        hooks.enter_context(watch(model, side, include=both, inputs=True))
    if alone:
        hooks.enter_context(watch(model, side, include=alone, exclude=more))
    cached = {name for names in names_by_layer(labels).values() for name in names.values()}
    return named | ({_LOGITS} & set(labels)) | cached


def _labelled_cache(side: str, names: Mapping[int, Mapping[str, str]]) -> Any:
    """Return an empty cache that labels the keys and values of layers as they come, [1, heads, tokens, size]."""
    from transformers import DynamicCache

    cache = DynamicCache()  # without a configuration, which would keep no more than the windows of layers
    update = cache.update

    def label_and_update(keys: Any, values: Any, layer: int, *args: Any, **kwargs: Any) -> Any:
        for kind, states in ((KEYS, keys), (VALUES, values)):
            if name := names.get(layer, {}).get(kind):
                record_at("transformers:DynamicCache", side, name, states.transpose(1, 2).flatten(2))
        return update(keys, values, layer, *args, **kwargs)

    cache.update = label_and_update
    return cache


def _label_heads(side: str, name: str, heads_first: bool) -> Callable[[Any, Any, Any], None]:
    """Return a hook that labels an output of [1, tokens, heads, size] as [1, tokens, heads · size]."""

    def label(module: Any, _args: Any, output: Any) -> None:
        whole = output.transpose(1, 2) if heads_first else output
        record_at(f"transformers:{type(module).__name__}", side, name, whole.flatten(2))

    return label


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
