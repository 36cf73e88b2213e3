"""Rules from actual ids to golden ones: what a pattern carries over, what cannot be, what is proposed."""

import ast
import random
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.idmap.name_tokens import name_tokens, split_numbers
from aclcmp.orchestrator.idmap.similarity import CandidateLabel
from aclcmp.orchestrator.idmap.suggest import CERTAIN, Suggestion, suggest
from aclcmp.orchestrator.plan.id_rules import IdMap, IdRule
from tests.processes import PATIENCE

NAMES = st.text(alphabet="ab.*?[]-1", min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("golden", "actual", "actual_id", "expected"),
    [
        ("layers.*.o_proj", "h.*.dense", "h.12.dense", "layers.12.o_proj"),
        ("layers.*.o_proj", "h.*.dense", "h.1.2.dense", "h.1.2.dense"),
        ("layers.*.o_proj", "h.*.dense", "xh.1.dense", "xh.1.dense"),
        ("l.*.e.*.w", "h.*.x.*.w", "h.3.x.17.w", "l.3.e.17.w"),
        ("model.**", "transformer.**", "transformer.h.0.mlp", "model.h.0.mlp"),
        ("**.o_proj", "**.dense", "a.b.dense", "a.b.o_proj"),
        ("**.o_proj", "**.dense", "dense", "o_proj"),
        ("x.**", "**.y", "y", "x"),
        ("**", "module.**", "module.a.b", "a.b"),
        ("layer_*", "block*", "block7", "layer_7"),
        ("layers[*].a", "h[*].a", "h[3].a", "layers[3].a"),
        ("x[3]", "y[3]", "y[3]", "x[3]"),
        ("x[3]", "y[3]", "y3", "y3"),
        ("x?", "y?", "ya", "ya"),
        ("x?", "y?", "y?", "x?"),
        ("a+(b)$", "a.*", "a.1", None),
    ],
)
def test_stars_carry_over_by_place(golden: str, actual: str, actual_id: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(UsageError, match="number of stars"):
            IdMap([IdRule(golden, actual)])
    else:
        assert IdMap([IdRule(golden, actual)]).golden_name_of(actual_id) == expected


def test_the_first_rule_wins_whether_exact_or_not() -> None:
    ids = IdMap([IdRule("x", "h.0.a"), IdRule("l.*.b", "h.*.a"), IdRule("y", "h.1.a"), IdRule(None, "h.*.c")])
    assert ids.golden_name_of("h.0.a") == "x"
    assert ids.golden_name_of("h.1.a") == "l.1.b"
    assert ids.golden_name_of("h.0.c") is None
    assert ids.golden_name_of("other") == "other"
    assert ids.find_unused_rules(["anything"], ["h.0.a", "h.2.a"]) == [IdRule("y", "h.1.a"), IdRule(None, "h.*.c")]


def test_golden_labels_can_be_dropped() -> None:
    ids = IdMap([IdRule("layers.*.drop", None), IdRule("layers.0.drop2", "x")])
    assert not ids.keeps_golden("layers.3.drop")
    assert ids.keeps_golden("layers.0.drop2")
    assert ids.keeps_golden("x")
    assert ids.find_unused_rules(["layers.3.drop"], ["x"]) == []


def test_two_rules_swap() -> None:
    ids = IdMap([IdRule("a", "b"), IdRule("b", "a")])
    ids.check(["a", "b", "a"])
    assert [ids.golden_name_of(name) for name in "ab"] == ["b", "a"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([IdRule("a.*", "b.*.*", 3)], "map.txt:3: 'a.*' and 'b.*.*' differ in their number of stars"),
        ([IdRule("a.*", "b", 3)], "map.txt:3: 'a.*' and 'b' differ"),
        ([IdRule(None, None, 7)], "map.txt:7: nothing on both sides"),
        ([IdRule("", "a", 7)], "map.txt:7: an empty pattern"),
        ([IdRule("a", "", 7)], "map.txt:7: an empty pattern"),
        ([IdRule("a", "b", 1), IdRule("a", "c", 9)], "map.txt:9: 'a' is already on the golden side of line 1"),
        ([IdRule("a", "b", 1), IdRule("c", "b", 9)], "map.txt:9: 'b' is already on the actual side of line 1"),
        ([IdRule(None, "*" * 9, 2)], "map.txt:2: 5 stars in one pattern"),
        ([IdRule("x" * 9999 + "*", "y", 2)], "xxx...' and 'y' differ"),
        ([IdRule("a", ""), IdRule("b", "c")], "map.txt: an empty pattern"),
    ],
)
def test_rules_that_cannot_be(rules: list[IdRule], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        IdMap(rules, "map.txt")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "ids", "message"),
    [
        ([IdRule("a", "b", 4)], ["a", "b"], "m:'a' (no rule, own name) and 'b' (line 4) both become 'a'"),
        (
            [IdRule("a", "b"), IdRule("*", "c.*")],
            ["c.a", "b"],
            "'c.a' (the rule '*' -> 'c.*') and 'b' (the rule 'a' -> 'b')",
        ),
    ],
)
def test_two_actual_labels_with_one_golden_name(rules: list[IdRule], ids: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message.replace("m:", "m: "))):
        IdMap(rules, "m").check(ids)
    IdMap([*rules, IdRule(None, "nothing")], "m").check(ids[1:])


@given(st.lists(st.tuples(NAMES, NAMES), max_size=4), st.lists(NAMES, max_size=6))
def test_any_rules_map_or_are_refused_in_one_line(pairs: list[tuple[str, str]], ids: list[str]) -> None:
    try:
        rules = IdMap([IdRule(*pair) for pair in pairs])
        rules.check(ids)
    except UsageError as error:
        assert "\n" not in str(error)
        return
    for _, actual in pairs:
        assert rules.rule_of(actual) is not None
    assert len({rules.golden_name_of(name) for name in ids} - {None}) == len(set(ids))


@given(st.lists(NAMES, min_size=1, max_size=4), st.sampled_from([".", "-"]))
def test_a_pattern_and_its_reverse_lead_back(values: list[str], joint: str) -> None:
    values = [value.replace(".", "").replace("-", "") or "0" for value in values]
    one, other = ("".join(f"{joint}{mark}{joint}*" for _ in values) for mark in ("left", "right"))
    there, back = IdMap([IdRule(one, other)]), IdMap([IdRule(other, one)])
    data_id = "".join(f"{joint}right{joint}{value}" for value in values)
    golden = there.golden_name_of(data_id)
    assert golden == data_id.replace("right", "left") or "right" in "".join(values)
    assert golden is not None
    assert back.golden_name_of(golden) == data_id or "left" in "".join(values)


@pytest.mark.parametrize(
    ("data_id", "form", "numbers"),
    [
        ("model.layers.3.mlp", "model.layers.*.mlp", (3,)),
        ("layers/12", "layers/*", (12,)),
        ("layers[12].out", "layers[*].out", (12,)),
        ("layer_3.x", "layer_*.x", (3,)),
        ("decoderLayer3", "decoderLayer*", (3,)),
        ("12_ChatGlm6BLayerEncoderOperation/0_Norm", "*_ChatGlm6BLayerEncoderOperation/0_Norm", (12,)),
        ("layers.3.mlp.experts.17.w1", "layers.*.mlp.experts.*.w1", (3, 17)),
        ("Module.layers.3.Linear.forward.0.output.0", "Module.layers.*.Linear.forward.0.output.0", (3,)),
        ("Module.embed.Embedding.forward.0.output.0", "Module.embed.Embedding.forward.0.output.0", ()),
        ("layers.03.x", "layers.03.x", ()),
        (f"layers.{'9' * 5000}", f"layers.{'9' * 5000}", ()),
        ("layers.٣", "layers.٣", ()),
        ("a*b.3", "a*b.3", ()),
        ("data_20250101-120000_3", "data_20250101-120000_*", (3,)),
        ("data_x_3", "data_x_3", ()),
        ("3.a", "3.a", ()),
        ("", "", ()),
    ],
)
def test_numbers_of_ids(data_id: str, form: str, numbers: tuple[int, ...]) -> None:
    assert split_numbers(data_id) == (form, numbers)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("transformer.encoder.layers.*.self_attention.dense", "model.encoder.layers.*.self_attn.o_proj"),
        ("transformer.h.*.mlp.c_proj", "model.layers.*.mlp.down_proj"),
        ("h.*.ln_2", "layers.*.post_attention_layernorm"),
        ("transformer.wte", "model.embed_tokens"),
        ("layers.*.feed_forward.w2", "layers.*.mlp.down_proj"),
        ("layers.*.attention.wq", "layers.*.self_attn.q_proj"),
        ("h.*.attn.c_attn", "h.*.attention.query_key_value"),
        ("SelfAttention.OProj", "self_attn.o_proj"),
    ],
)
def test_words_that_mean_the_same(one: str, other: str) -> None:
    assert name_tokens(one) == name_tokens(other)


def seen(*ids: str, shape: tuple[int, ...] = (2, 8), dtype: str = "float32") -> list[CandidateLabel]:
    return [CandidateLabel(data_id, shape, dtype, order) for order, data_id in enumerate(ids)]


def pairs_of(suggestion: Suggestion, *, certain: bool = True) -> set[tuple[str | None, str | None]]:
    return {(p.rule.golden, p.rule.actual) for p in suggestion.proposals if p.certain or not certain}


def test_the_same_names_need_no_rule() -> None:
    labels = seen("embed", *(f"layers.{n}.mlp" for n in range(5)), "head")
    assert suggest(labels, labels[::-1]) == Suggestion(7, (), (), ())


def test_nothing_to_propose() -> None:
    assert suggest([], []) == Suggestion(0, (), (), ())
    assert suggest(seen("a"), []) == Suggestion(0, (), ("a",), ())
    assert suggest([], seen("a")) == Suggestion(0, (), (), ("a",))


def test_layers_become_one_rule_with_its_reasons() -> None:
    golden = seen(*(f"model.layers.{n}.self_attn.o_proj" for n in range(12)))
    actual = seen(*(f"transformer.encoder.layers.{n}.self_attention.dense" for n in range(12)))
    (proposal,) = suggest(golden, actual).proposals
    assert proposal.rule == IdRule(
        "model.layers.*.self_attn.o_proj", "transformer.encoder.layers.*.self_attention.dense"
    )
    assert proposal.certain
    assert proposal.labels == 12
    assert "equal shapes" in proposal.reasons
    assert "in order" in proposal.reasons


def test_one_layer_is_told_exactly() -> None:
    (proposal,) = suggest(seen("layers.4.o_proj"), seen("h.4.dense")).proposals
    assert proposal.rule == IdRule("layers.4.o_proj", "h.4.dense")


def test_generated_ids_of_two_runs_are_one_rule() -> None:
    shapes = [(2, n) for n in range(1, 6)]
    golden, actual = (
        [CandidateLabel(f"data_{stamp}_{n}", shape, "float32", n) for n, shape in enumerate(shapes)]
        for stamp in ("20250101-120000", "20260202-130000")
    )
    (rule,) = suggest(golden, actual).rules
    assert rule == IdRule("data_20250101-120000_*", "data_20260202-130000_*")
    shifted = [CandidateLabel(a.data_id, b.shape, b.dtype, b.order) for a, b in zip(actual[1:], golden, strict=False)]
    assert not suggest(golden, shifted).rules, "one call more before: the counts lie"


def test_the_same_names_in_different_layers() -> None:
    result = suggest(seen("layers.0.mlp", "layers.1.mlp"), seen("layers.2.mlp", "layers.3.mlp"))
    assert result == Suggestion(0, (), ("layers.0.mlp", "layers.1.mlp"), ("layers.2.mlp", "layers.3.mlp"))


def test_layer_numbers_have_to_agree() -> None:
    result = suggest(seen("layers.4.o_proj"), seen("h.5.dense"))
    assert result == Suggestion(0, (), ("layers.4.o_proj",), ("h.5.dense",))


def test_kinds_of_elements_have_to_agree() -> None:
    result = suggest(seen("router.ids"), seen("router.idx", dtype="int64"))
    assert not result.proposals


def test_names_without_meaning_pair_by_order_and_are_not_certain() -> None:
    shapes = [(4,), (8, 8), (3,), (4,)]
    golden = [CandidateLabel("abcd"[n], shape, "float32", n) for n, shape in enumerate(shapes)]
    actual = [CandidateLabel("wxyz"[n], shape, "bfloat16", n) for n, shape in enumerate(shapes)]
    result = suggest(golden, actual)
    assert pairs_of(result, certain=False) == set(zip("abcd", "wxyz", strict=True))
    assert not result.rules


def test_what_fits_several_is_not_certain() -> None:
    result = suggest(seen("layers.0.attn.zip", "layers.0.attn.zap"), seen("layers.0.attn.foo"))
    assert not result.rules


def test_different_shapes_are_never_certain() -> None:
    (proposal,) = suggest(seen("h.0.dense", shape=(3, 5)), seen("l.0.o_proj", shape=(7, 11))).proposals
    assert "different shapes" in proposal.reasons
    assert not proposal.certain


@pytest.mark.parametrize(("shape", "reason"), [((2, 4), "a factor"), ((1, 2, 8), "as many"), ((2, 32), "a factor")])
def test_shapes_of_shards(shape: tuple[int, ...], reason: str) -> None:
    (proposal,) = suggest(seen("h.0.dense"), seen("l.0.o_proj", shape=shape)).proposals
    assert reason in " ".join(proposal.reasons)
    assert proposal.certain


def test_a_pattern_spares_what_has_the_same_name_already() -> None:
    golden = seen("layers.0.mlp", "layers.1.mlp", "h.last.ffn")
    actual = seen("h.0.ffn", "h.1.ffn", "h.last.ffn")
    result = suggest(golden, actual)
    rules = IdMap(result.rules)
    assert [rules.golden_name_of(a.data_id) for a in actual] == [g.data_id for g in golden]
    assert not result.golden_only
    assert not result.actual_only


WORDS = {"self_attn": "attention", "o_proj": "dense", "layers": "h", "mlp": "ffn", "down_proj": "w2", "up_proj": "w3"}
BLOCK = ["input_layernorm", *(f"self_attn.{name}_proj" for name in "qkvo"), "self_attn", "post_attention_layernorm"]
BLOCK += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "mlp", ""]


def model(layers: int) -> list[CandidateLabel]:
    names = ["model.embed_tokens"]
    names += [f"model.layers.{n}.{part}".rstrip(".") for n in range(layers) for part in BLOCK]
    names += ["model.norm", "lm_head"]
    shape = {"q_proj": (2, 8), "k_proj": (2, 4), "v_proj": (2, 4), "up_proj": (2, 24), "gate_proj": (2, 24)}
    return [CandidateLabel(name, shape.get(name.split(".")[-1], (2, 8)), "float32", n) for n, name in enumerate(names)]


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 5), st.booleans(), st.floats(0, 0.5))
def test_planted_renames_are_found(seed: int, layers: int, shuffled: bool, dropped: float) -> None:
    chance = random.Random(seed)
    swaps = {old: new for old, new in WORDS.items() if chance.random() < 0.7}
    golden = model(layers)
    kept = [one for one in golden if chance.random() >= dropped]
    orders = list(range(len(kept)))
    if shuffled:
        chance.shuffle(orders)
    truth, actual = {}, []
    for one, order in zip(kept, orders, strict=True):
        name = one.data_id
        for old, new in swaps.items():
            name = re.sub(rf"\b{old}\b", new, name)
        truth[name] = one.data_id
        actual.append(CandidateLabel(name, one.shape, "float16", order))
    result = suggest(golden, actual)
    rules = IdMap(result.rules)
    rules.check(truth)
    wrong = {name: got for name, got in ((n, rules.golden_name_of(n)) for n in truth) if got != truth[name]}
    assert all(got == name for name, got in wrong.items()), "a certain rule is wrong"
    if not shuffled and not dropped:
        assert not wrong
    assert suggest(golden[::-1], sorted(actual, key=lambda s: s.data_id)) == result


LABELS = st.one_of(
    NAMES,
    st.builds(
        "{}.{}.{}".format,
        st.sampled_from(["layers", "h", "model.h"]),
        st.sampled_from(["0", "1", "2", "x", "*", "1.experts.0", "2.experts.1"]),
        st.sampled_from(["mlp", "ffn", "a.*", "dense", "o_proj"]),
    ),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(LABELS, st.sampled_from([(), (2,), (4,), (2, 3)])), max_size=12), st.integers(0, 2**32))
def test_any_names_give_rules_that_hold(labels: list[tuple[str, tuple[int, ...]]], seed: int) -> None:
    sides: tuple[list[CandidateLabel], list[CandidateLabel]] = ([], [])
    chance = random.Random(seed)
    for name, shape in labels:
        side = chance.choice(sides)
        side.append(CandidateLabel(name, shape, chance.choice(["float32", "int64"]), len(side)))
    result = suggest(*sides)
    for rules in (result.rules, [proposal.rule for proposal in result.proposals]):
        IdMap(rules).check([one.data_id for one in sides[1]])
    assert all(0 <= p.score <= 1 and p.certain == (p.score >= CERTAIN) and p.labels > 0 for p in result.proposals)


def test_a_thousand_different_names() -> None:
    """Without layers nothing is pruned."""
    chance = random.Random(1)
    words = ["alpha", "beta", "gamma", "delta", "iota", "kappa", "theta", "rho", "sigma", "tau"]
    names = sorted({".".join(chance.choices(words, k=5)) for _ in range(700)})
    result = suggest(seen(*(f"one.{name}" for name in names)), seen(*(f"two.{name}" for name in names)))
    assert {(rule.golden, rule.actual) for rule in result.rules} <= {(f"one.{name}", f"two.{name}") for name in names}
    assert len(result.rules) > 0.9 * len(names)


MODELS = """
import sys
import torch
from transformers import GlmConfig, GlmForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from aclcmp.orchestrator.idmap.similarity import CandidateLabel

def labels(model):
    found = []
    def hook(name):
        def record(module, args, output):
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, torch.Tensor):
                dtype = str(output.dtype).removeprefix("torch.")
                found.append(CandidateLabel(name, tuple(output.shape), dtype, len(found)))
        return record
    for name, module in model.named_modules():
        module.register_forward_hook(hook(name))
    with torch.no_grad():
        model(torch.arange(1, 7)[None])
    return found

facts = {"vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
llama = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, **facts}
print(repr({
    "llama": labels(LlamaForCausalLM(LlamaConfig(**llama))),
    "glm": labels(GlmForCausalLM(GlmConfig(head_dim=16, **llama))),
    "gpt2": labels(GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=3, n_head=4, n_inner=192, **facts))),
}))
"""


def real_models() -> dict[str, list[CandidateLabel]]:
    done = subprocess.run([sys.executable, "-c", MODELS], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    listed = ast.parse(done.stdout.strip().splitlines()[-1], mode="eval").body
    assert isinstance(listed, ast.Dict)
    sides = {}
    for key, value in zip(listed.keys, listed.values, strict=True):
        assert isinstance(key, ast.Constant)
        assert isinstance(value, ast.List)
        calls = [call for call in value.elts if isinstance(call, ast.Call)]
        sides[str(key.value)] = [
            CandidateLabel(**{k.arg or "": ast.literal_eval(k.value) for k in call.keywords}) for call in calls
        ]
    return sides


@pytest.mark.model
def test_real_models() -> None:
    sides = real_models()
    glm = suggest(sides["llama"], sides["glm"])
    assert pairs_of(glm) == {("model.layers.*.mlp.act_fn", "model.layers.*.mlp.activation_fn")}
    gpt2 = suggest(sides["llama"], sides["gpt2"])
    assert pairs_of(gpt2) == {
        ("model.embed_tokens", "transformer.wte"),
        ("model.layers.*.input_layernorm", "transformer.h.*.ln_1"),
        ("model.layers.*.self_attn.o_proj", "transformer.h.*.attn.c_proj"),
        ("model.layers.*.self_attn", "transformer.h.*.attn"),
        ("model.layers.*.post_attention_layernorm", "transformer.h.*.ln_2"),
        ("model.layers.*.mlp.act_fn", "transformer.h.*.mlp.act"),
        ("model.layers.*.mlp.up_proj", "transformer.h.*.mlp.c_fc"),
        ("model.layers.*.mlp.down_proj", "transformer.h.*.mlp.c_proj"),
        ("model.layers.*.mlp", "transformer.h.*.mlp"),
        ("model.layers.*", "transformer.h.*"),
        ("model.norm", "transformer.ln_f"),
    }
    assert not {"q_proj", "k_proj", "v_proj"} & {
        name.split(".")[-1] for rule in gpt2.rules if isinstance(name := rule.golden, str)
    }
    for name, labels in sides.items():
        renamed = [
            CandidateLabel(f"Module.net.{label.data_id}.forward.0", label.shape, "float16", label.order)
            for label in labels
        ]
        rules = IdMap(proposal.rule for proposal in suggest(labels, renamed).proposals)
        assert [rules.golden_name_of(one.data_id) for one in renamed] == [label.data_id for label in labels], name


def test_too_many_names_are_refused() -> None:
    names = [f"{n:05}x" for n in range(4200)]
    with pytest.raises(UsageError, match="too many"):
        suggest(seen(*names), seen(*names))
