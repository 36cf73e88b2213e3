"""What values add to a proposed map: they find pairs without names, and a bug does not break those that names find."""

import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.idmap.signatures import AGREE, DIFFER, FEW, distances, places, signature_of
from aclcmp.orchestrator.idmap.similarity import CandidateLabel
from aclcmp.orchestrator.idmap.suggest import CERTAIN, Proposal, Suggestion, suggest
from aclcmp.orchestrator.plan.id_rules import IdMap
from tests.processes import PATIENCE

Array = npt.NDArray[Any]
Model = dict[str, Array]
"""Labels in order of recording."""

SHAPE = (3, 40)


def column(values: Array, at: Array) -> Array:
    return values.ravel()[at].astype(float)[:, None]


def seen(model: Model, order: Sequence[str] = (), dtype: str = "float32") -> list[CandidateLabel]:
    """The labels of a run of one rank, in the model's order or another."""
    found = []
    for number, name in enumerate(order or model):
        view = signature_of(model[name].shape, partial(column, model[name]))
        found.append(CandidateLabel(name, model[name].shape, dtype, number, (view,) if view else ()))
    return found


def bfloat16(values: Array) -> Array:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32)


def words(chance: random.Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chance.choices("bcdfghjkmprstvz", k=9))] = None
    return list(found)


PARTS = ("first_norm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn", "mlp.up_proj", "mlp")


def transformer(layers: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Model:
    """Labels of equal shapes with values of their own, and a stream to which each layer adds little."""
    rng = np.random.default_rng(seed)
    stream = 10 * rng.standard_normal(shape)
    model = {"model.embed": stream}
    for layer in range(layers):
        for part in PARTS:
            model[f"model.layers.{layer}.{part}"] = rng.standard_normal(shape)
        stream = stream + model[f"model.layers.{layer}.self_attn"] + model[f"model.layers.{layer}.mlp"]
        model[f"model.layers.{layer}"] = stream
    model["model.norm"] = rng.standard_normal(shape)
    return model


def renamed(model: Model, names: dict[str, str]) -> Model:
    """The model under other words: each dotted part of an id that is in `names` becomes what it is there."""
    return {".".join(names.get(part, part) for part in name.split(".")): value for name, value in model.items()}


PORTED = {"model": "transformer", "layers": "h", "embed": "wte", "norm": "ln_f", "first_norm": "ln_1", "mlp": "ffn"}
PORTED |= {"self_attn": "attention", "q_proj": "wq", "k_proj": "wk", "v_proj": "wv", "up_proj": "c_fc"}


def broken(model: Model, first: int, seed: int = 1) -> Model:
    """The model with other values from label number `first` on."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(value.shape) if number >= first else value
        for number, (name, value) in enumerate(model.items())
    }


def check_maps(suggestion: Suggestion, golden: Iterable[str], actual: Iterable[str]) -> None:
    """The certain rules lead from the actual ids to the golden ones, which are given in the same order."""
    ids = IdMap(suggestion.rules)
    assert {name: ids.golden_name_of(name) for name in actual} == dict(zip(actual, golden, strict=True))


def proposal_of(suggestion: Suggestion, end: str) -> Proposal:
    (found,) = [each for each in suggestion.proposals if (each.rule.golden or "").endswith(end)]
    return found


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 40), st.booleans())
def test_a_permutation_of_ids_without_meaning_is_found(seed: int, count: int, narrow: bool) -> None:
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    names = words(chance, 2 * count)
    theirs, ours = names[:count], names[count:]
    golden = {name: rng.standard_normal(SHAPE) * 10.0 ** rng.integers(-4, 4) for name in theirs}
    actual = {
        other: bfloat16(golden[name]) if narrow else golden[name] for name, other in zip(theirs, ours, strict=True)
    }
    order = chance.sample(ours, count)
    suggestion = suggest(seen(golden), seen(actual, order, "bfloat16" if narrow else "float32"))
    check_maps(suggestion, theirs, ours)
    assert all("values agree (1 of 1 label)" in proposal.reasons for proposal in suggestion.proposals)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_words_without_meaning_in_layers_are_found(seed: int, layers: int) -> None:
    chance = random.Random(seed)
    golden = transformer(layers, seed)
    parts = dict.fromkeys(part for name in golden for part in name.split(".") if not part.isdigit())
    actual = renamed(golden, dict(zip(parts, words(chance, len(parts)), strict=True)))
    noisy = {
        name: bfloat16(value * (1 + 0.01 * np.random.default_rng(seed).standard_normal(value.shape)))
        for name, value in actual.items()
    }
    layered = {name.replace(".", ".layers.", 1) if "." in name else name: value for name, value in noisy.items()}
    suggestion = suggest(seen(golden), seen(layered, chance.sample(list(layered), len(layered))))
    check_maps(suggestion, golden, layered)


def test_candidates_that_names_leave_open_are_settled() -> None:
    golden = {
        f"layers.{n}.attn.{part}": value for n in range(3) for part, value in zip("xy", arrays(2, n), strict=True)
    }
    actual = {f"h.{n}.attn.{part}": value for n in range(3) for part, value in zip("ba", arrays(2, n), strict=True)}
    assert not suggest([replace(one, signatures=()) for one in seen(golden)], seen(actual)).rules
    check_maps(suggest(seen(golden), seen(actual, sorted(actual))), golden, actual)


def arrays(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> list[Array]:
    return list(np.random.default_rng(seed).standard_normal((count, *shape)))


def test_values_win_over_names() -> None:
    """A port that calls its keys queries."""
    golden = transformer(3)
    swapped = PORTED | {"q_proj": "wk", "k_proj": "wq"}
    actual = renamed(golden, swapped)
    check_maps(suggest(seen(golden), seen(actual)), golden, actual)


@settings(max_examples=40)
@given(st.integers(1, 6), st.data())
def test_a_bug_does_not_break_what_names_find(layers: int, data: st.DataObject) -> None:
    golden = transformer(layers)
    first = data.draw(st.integers(1, len(golden)))
    actual = renamed(broken(golden, first), PORTED)
    suggestion = suggest(seen(golden), seen(actual))
    check_maps(suggestion, golden, actual)


def test_inputs_that_agree_after_a_bug_do_not_hide_it() -> None:
    golden: Model = {}
    for name, value in transformer(6).items():
        golden |= {name.replace("first_norm", "rotary"): np.arange(24.0), name: value}
    after = broken(golden, 2)
    actual = renamed({name: golden[name] if "rotary" in name else after[name] for name in golden}, PORTED)
    check_maps(suggest(seen(golden), seen(actual)), golden, actual)


@pytest.mark.parametrize("first", [1, 2, 5])
def test_a_bug_that_nothing_else_feels_does_not_break_its_pair(first: int) -> None:
    golden = transformer(6)
    actual = renamed(golden, PORTED)
    for layer in range(first, 6):
        actual[f"transformer.h.{layer}.ffn.c_fc"] = arrays(1, layer)[0]
    suggestion = suggest(seen(golden), seen(actual))
    check_maps(suggestion, golden, actual)
    reasons = "; ".join(proposal_of(suggestion, "up_proj").reasons)
    assert f"values agree ({first} of 6 labels)" in reasons
    assert f"values differ ({6 - first} of 6 labels): relative L2 1." in reasons
    assert f"first in model.layers.{first}.mlp.up_proj" in reasons


def test_a_good_name_with_other_values_is_doubtful_where_all_else_agrees() -> None:
    golden = transformer(6)
    actual = renamed(golden, PORTED)
    for layer in range(6):
        actual[f"transformer.h.{layer}.ffn.c_fc"] = arrays(1, layer)[0]
    suggestion = suggest(seen(golden), seen(actual))
    found = proposal_of(suggestion, "up_proj")
    assert not found.certain and found.rule.actual == "transformer.h.*.ffn.c_fc"
    assert any(reason.startswith("values differ (6 of 6 labels): relative L2 1.") for reason in found.reasons)
    assert all(each.certain for each in suggestion.proposals if each != found)


def test_where_nothing_agrees_all_is_proposed_and_nothing_certain() -> None:
    golden = transformer(3)
    actual = renamed(broken(golden, 0), PORTED)
    suggestion = suggest(seen(golden), seen(actual))
    assert not suggestion.rules and len(suggestion.proposals) == len(PARTS) + 3
    match_forms = IdMap(each.rule for each in suggestion.proposals)
    assert [match_forms.golden_name_of(name) for name in actual] == list(golden)


def test_much_round_off_says_nothing() -> None:
    golden = transformer(3)
    rng = np.random.default_rng(2)
    coarse = {name: value + 0.25 * value.std() * rng.standard_normal(value.shape) for name, value in golden.items()}
    suggestion = suggest(seen(golden), seen(renamed(coarse, PORTED)))
    check_maps(suggestion, golden, renamed(golden, PORTED))
    assert any(
        "values neither agree nor differ (3 labels): relative L2 0.2" in r
        for p in suggestion.proposals
        for r in p.reasons
    )


CONSTANTS: list[Array] = [np.zeros(SHAPE), np.ones(SHAPE), np.full(SHAPE, np.nan), np.tril(np.ones((8, 8))), np.eye(12)]
CONSTANTS += [np.where(np.tril(np.ones((8, 8))) > 0, 0, -np.inf), np.arange(7.0), np.array(3.5), np.zeros((0, 4))]


@pytest.mark.parametrize("number", range(len(CONSTANTS)))
def test_constants_prove_nothing(number: int) -> None:
    constant = CONSTANTS[number]
    golden, actual = ({f"{name}{n}x": constant for n in range(4)} for name in "ab")
    theirs, ours = ([replace(one, signatures=()) for one in seen(side)] for side in (golden, actual))
    bare = suggest(theirs, ours)
    assert suggest(seen(golden), seen(actual)) == bare
    other = {name: value + 1 for name, value in actual.items()}
    assert suggest(seen(golden), seen(other)) == bare


def test_layers_counted_from_another_number_are_not_claimed() -> None:
    golden = transformer(6)
    actual = renamed(golden, PORTED)
    counted = {
        ".".join(str(int(part) + 1) if part.isdigit() else part for part in name.split(".")): value
        for name, value in actual.items()
        if name != "transformer.ln_f"
    }
    suggestion = suggest(seen(golden), seen(counted))
    assert {rule.golden for rule in suggestion.rules} == {"model.embed"}
    assert "values agree one layer apart" in "; ".join(proposal_of(suggestion, "q_proj").reasons)


def test_labels_that_hold_one_tensor_are_told_apart_by_name() -> None:
    values = arrays(4)
    golden = {f"layers.{n}.{part}": values[n] for n in range(4) for part in ("self_attn.o_proj", "self_attn")}
    actual = {f"h.{n}.{part}": values[n] for n in range(4) for part in ("attention.dense", "attention")}
    check_maps(suggest(seen(golden), seen(actual)), golden, actual)
    nameless = {f"h.{n}.{part}": values[n] for n in range(4) for part in ("foo", "bar")}
    for order in (list(nameless), list(nameless)[::-1]):
        suggestion = suggest(seen(golden), seen(nameless, order))
        assert len(suggestion.proposals) == 2
        assert all("others have the same values" in each.reasons for each in suggestion.proposals)
        assert all(each.score < 0.7 for each in suggestion.proposals)


def test_a_stream_that_varies_little_is_told_apart() -> None:
    stream = np.cumsum([20 * arrays(1)[0], *arrays(12, 1)], axis=0)
    theirs, ours = words(random.Random(1), 26)[:13], words(random.Random(1), 26)[13:]
    golden, actual = dict(zip(theirs, stream, strict=True)), dict(zip(ours, map(bfloat16, stream), strict=True))
    check_maps(suggest(seen(golden), seen(actual, ours[::-1])), theirs, ours)


@pytest.mark.parametrize("shape", [(4, 6, 32), (2, 4, 96)])
def test_values_in_another_order_agree_by_their_spread(shape: tuple[int, ...]) -> None:
    golden = dict(zip(words(random.Random(2), 6), arrays(6, 3, shape), strict=True))
    turned = [bfloat16(value.swapaxes(0, 1).copy()) for value in golden.values()]
    ours = words(random.Random(3), 6)
    actual = dict(zip(ours, turned, strict=True))
    check_maps(suggest(seen(golden), seen(actual, ours[::-1])), golden, ours)
    orders = [np.random.default_rng(n).permutation(60) for n in range(2)]
    one, other = ([each.signatures] for n, order in enumerate(orders) for each in seen({str(n): order}))
    assert distances(one, other)[0, 0] > DIFFER, "all permutations have one spread"


@pytest.mark.parametrize("shape", [(6, 4), (24,), (1, 2, 3, 1, 4), (2, 12, 1)])
def test_shapes_of_as_many_elements_in_one_order_agree(shape: tuple[int, ...]) -> None:
    value = arrays(1, 0, (2, 3, 4))[0]
    golden, same, other = (
        [each.signatures for each in seen({"x": array})]
        for array in (value, value.reshape(shape), arrays(1, 1, shape)[0])
    )
    assert distances(golden, same)[0, 0] < 1e-6
    apart = distances(golden, other)[0, 0]
    assert apart > DIFFER if [n for n in shape if n != 1] == [2, 3, 4] else np.isnan(apart)


@given(st.integers(1, 2**40))
def test_places_lie_within(count: int) -> None:
    chosen = places(count)
    assert chosen.size == min(count, 1024) and chosen[0] >= 0 and chosen[-1] < count and (np.diff(chosen) > -64).all()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["layers.0.a", "layers.1.a", "h.0.a", "h.1.b", "x", "y", "z"]),
            st.sampled_from([(3, 4), (12,), (40,), (1, 12)]),
            st.integers(0, 5),
            st.sampled_from([1.0, 1e-300, 1e200, np.nan, np.inf, -1.0]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_any_values_give_rules_that_hold(labels: list[tuple[str, tuple[int, ...], int, float, bool]]) -> None:
    sides: tuple[list[CandidateLabel], list[CandidateLabel]] = ([], [])
    for name, shape, seed, factor, right in labels:
        value = np.random.default_rng(seed).standard_normal(shape)
        value.flat[:: 1 + seed] *= factor
        (label,) = seen({name: value})
        sides[right].append(replace(label, order=len(sides[right])))
    suggestion = suggest(*sides)
    for rules in (suggestion.rules, [each.rule for each in suggestion.proposals]):
        IdMap(rules).check([one.data_id for one in sides[1]])
    assert all(0 <= p.score <= 1 and p.certain == (p.score >= CERTAIN) for p in suggestion.proposals)
    assert suggest(sides[0][::-1], sides[1][::-1]).proposals == suggestion.proposals or len(
        {one.data_id for side in sides for one in side}
    ) < len(labels)


def test_a_large_whole_is_looked_at_in_part() -> None:
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal((64, 1024)) for _ in range(2))
    assert one.size > FEW
    signatures = [seen({"x": value})[0].signatures for value in (one, other, bfloat16(one))]
    assert all(view.spread is None and view.sample.size == 1024 for (view,) in signatures)
    apart = distances(signatures[:1], signatures)[0]
    assert apart[0] < 1e-6 and apart[1] > 1 and 0 < apart[2] < AGREE / 10


MODELS = """
import sys
import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

def labels(model, wrong):
    found = {}
    def hook(name):
        def record(module, args, output):
            rest = output[1:] if isinstance(output, tuple) else ()
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                first = first.flip(-1) if name == wrong else first
                found[name] = first.float().numpy()
                return (first, *rest) if isinstance(output, tuple) else first
        return record
    hooks = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    with torch.no_grad():
        model(torch.arange(1, 23).reshape(2, 11))
    for each in hooks:
        each.remove()
    return found

torch.manual_seed(0)
facts = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
llama = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, **facts}
for name, model, wrong in (
    ("llama", LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **llama)), "model.layers.2.self_attn.q_proj"),
    ("gpt2", GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=4, n_head=4, **facts)), "transformer.h.2.attn.c_attn"),
):
    model.eval()
    np.savez(f"{sys.argv[1]}/{name}.golden.npz", **labels(model, ""))
    model.to(torch.bfloat16)
    np.savez(f"{sys.argv[1]}/{name}.right.npz", **labels(model, ""))
    np.savez(f"{sys.argv[1]}/{name}.wrong.npz", **labels(model, wrong))
"""


@pytest.mark.model
def test_real_models_under_words_without_meaning(tmp_path: Path) -> None:
    """float32 against bfloat16; many modules of theirs give one tensor under several names."""
    done = subprocess.run([sys.executable, "-c", MODELS, tmp_path], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    for name in ("llama", "gpt2"):
        golden = dict(np.load(tmp_path / f"{name}.golden.npz"))
        parts = dict.fromkeys(part for label in golden for part in label.split(".") if part and not part.isdigit())
        names = dict(zip(parts, words(random.Random(1), len(parts)), strict=True))
        for kind in ("right", "wrong"):
            actual = renamed(dict(np.load(tmp_path / f"{name}.{kind}.npz")), names)
            ids = IdMap(suggest(seen(golden), seen(actual, dtype="bfloat16")).rules)
            got = {label: ids.golden_name_of(label) for label in actual}
            truth = dict(zip(actual, golden, strict=True))
            wrong = {label: found for label, found in got.items() if found not in (label, truth[label])}
            assert not wrong, (name, kind)
            lost = {truth[label] for label, found in got.items() if found == label}
            assert lost <= (set() if kind == "right" else {"model.norm", "transformer.ln_f", "lm_head"}), (name, kind)
