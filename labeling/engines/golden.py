"""The golden side of an engine's run: transformers computes the very tokens that the engine computed, with rows named.

    python -m aclcmp.labeling.engines.golden SHARDS MODEL

`aclcmp golden` starts it with the launcher's environment. Requests run one at a time, each in one forward, so that
golden follows the engine's tokens and needs no cache. Of half precision the reference, in float32, comes along.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aclcmp.labeling.api import name_tokens, record_at, rows
from aclcmp.labeling.capture import Capture
from aclcmp.labeling.engines.families import FAMILIES, HEAD_NORMS, TUPLES, Family
from aclcmp.labeling.engines.kv_cache import KEYS, VALUES, names_by_layer
from aclcmp.labeling.engines.parted_tokens import PartedTokens, record_margins
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


def main(arguments: list[str]) -> int:
    """Run the golden side; return the exit code."""
    shards, model = Path(arguments[0]), Path(arguments[1])
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
        _run(model, requests, labels, weights, summarised)
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
    path: Path,
    requests: list[RecordedRequest],
    labels: Mapping[str, str],
    weights: Sequence[tuple[int, WeightTable]],
    summarised: Collection[str],
) -> None:
    """Run the model over all requests, in the engine's precision, and in float32 as the reference of a lower one.

    `weights` are what the engine's ranks hold, each with how many ranks there were: golden's are hashed as these need.
    `summarised` are the labels of which the engine's ranks kept only summaries.
    """
    import torch

    dtypes = sorted({dtype for dtype in labels.values() if dtype in ("bfloat16", "float16")})
    sides = {"pta": getattr(torch, dtypes[0]) if dtypes else torch.float32}
    if dtypes:
        sides["ref"] = torch.float32
    cached = names_by_layer(labels)
    occurring = {token for request in requests for token in request.tokens.values()}
    parted = PartedTokens()
    for side, dtype in sides.items():
        model = _load(path, dtype)
        if weights and dtype is torch.float32:  # casts of the weights in their own precision are recognised
            widths, types = wanted_of(table for _, table in weights)
            hash_weights(model, side, widths=widths, dtypes=types, parts=divisors(max(ranks for ranks, _ in weights)))
        hooks = ExitStack()
        partners = _watch(model, side, labels, hooks)
        of_side = "" if side == "pta" else f"{side}: "
        _say(f"{of_side}{path.name} in {dtype}: {len(partners)} of {len(labels)} labels have a module")
        if side == "pta" and (alone := sorted(set(labels) - partners)):
            _say(f"no module of the original for {', '.join(alone[:8])}{' ...' * (len(alone) > 8)}")
        for number, request in enumerate(requests, start=1):
            tokens = [request.tokens[position] for position in range(len(request.tokens))]
            cache = {"past_key_values": _labelled_cache(side, cached)} if cached else {}
            with torch.inference_mode(), rows(request.name, np.arange(len(tokens)), tokens):
                output = model(torch.tensor([tokens]), use_cache=bool(cache), **cache)
            at = sorted(request.logits)
            if at and _LOGITS in labels:
                with rows(request.name, at, [tokens[position] for position in at]):
                    record_at("transformers:lm_head", side, _LOGITS, output.logits[0][at])
                if side == "pta":
                    parted.add(
                        request.name, request.tokens, [p for p in at if p + 1 >= request.prompt], output.logits[0]
                    )
                likely = min(_LIKELY, output.logits.shape[-1])
                occurring.update(output.logits[0][at].topk(likely).indices.unique().tolist())
            _say(f"{of_side}request {number} of {len(requests)}, {len(tokens)} tokens")
        hooks.close()
    if _LOGITS in labels:
        record_margins(model, parted, partners - {*summarised}, _say)  # the last model is the one of float32
    if texts := _token_texts(path, sorted(occurring)):
        name_tokens(texts)


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


def _load(path: Path, dtype: Any) -> Any:
    if not (path / "config.json").exists():
        raise AclcmpError(f"{path} is no model folder: it has no config.json")
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise AclcmpError("transformers is not installed: pip install transformers") from None
    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager").eval()
    except (OSError, ValueError) as error:
        raise AclcmpError(f"{path}: {' '.join(str(error).split())[:300]}") from None


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
