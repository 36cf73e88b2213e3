"""Other kernels and planted faults, put by hooks into trained models of transformers; `real_weights.py` prints results.

Golden is the library's own code with eager attention. In any other run the hook of a module computes its output anew,
by another legitimate kernel or by a faulty one. Labels are the outputs of all modules under their own names, in the
order in which they return, as `aclcmp.watch` records them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from trained import BERT, Roles

Labels = dict[str, Tensor]
Kernel = str
"""A legitimate way to compute: "eager", "sdpa", "online", "halves", "summands", "norm", or several joined by "+"."""

_FRACTION = 3
"""Number of summands of a matmul, as tensor parallelism over so many ranks has them."""
_BLOCK = 16
"""Number of keys that an online softmax takes at a time."""


class Fault(NamedTuple):
    """A planted fault of one layer."""

    kind: str
    layer: int


NONE = Fault("", -1)


@dataclass(frozen=True)
class Kind:
    """Changes that a kind of fault makes to a run. `roles` are the modules that are wrong by themselves, in order."""

    roles: tuple[str, ...]
    hints: frozenset[str] = frozenset()
    """Kinds of hints of which one is due; empty if the error has no closed form at the first wrong label."""
    also: frozenset[str] = frozenset()
    """Kinds of hints that are right, too, though not due."""
    place: str = ""
    """Text that must stand in the place of the error, instead of a hint."""
    output: Callable[[Tensor, Tensor, nn.Module], Tensor] | None = None
    """Changes the output of the first role: (output, input, module) -> output."""
    weight: Callable[[Tensor, Tensor], Tensor] | None = None
    """Changes the weight of the first role: (weight, weight of the same module in the next layer) -> weight."""
    attention: Callable[[Attend], None] | None = None
    """Changes the inputs of attention, or its output."""
    positions: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    """Changes the layer's rotary positions: (cos, sin) -> (cos, sin)."""
    swap: tuple[str, str] | None = None
    """Two roles that have each other's weights."""
    needs: Callable[[Roles, Any], bool] = lambda roles, config: True


@dataclass
class Attend:
    """One call of attention: inputs (batch, heads, tokens, size), additive mask, scale, and changes to the output."""

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor
    scale: float
    rotary: tuple[Tensor, Tensor] | None
    groups: str = "interleaved"
    after: Callable[[Tensor], Tensor] = lambda out: out
    """Changes the output, (batch, tokens, heads, size)."""
    probabilities: Callable[[Tensor], Tensor] | None = None


def record(
    model: Any, roles: Roles, inputs: Mapping[str, Tensor], kernel: Kernel = "eager", fault: Fault = NONE
) -> Labels:
    """Run a model and return the outputs of its modules."""
    run = _Run(model, roles, frozenset(kernel.split("+")), fault)
    found: Labels = {}
    with ExitStack() as hooks, torch.no_grad():

        def hook(name: str, module: nn.Module) -> None:
            def after(_: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
                first = out[0] if isinstance(out, tuple) else out
                if not isinstance(first, Tensor):
                    return None
                new = run.output(name, module, args, first)
                found[name] = new.detach().clone()
                return None if new is first else (new, *out[1:]) if isinstance(out, tuple) else new

            hooks.callback(module.register_forward_hook(after).remove)

        for name, module in model.named_modules():
            if name and not isinstance(module, nn.ModuleList | nn.Dropout) and "rotary" not in name:
                hook(name, module)
        run.prepare(hooks)
        model(**inputs, use_cache=False) if roles is not BERT else model(**inputs)
    return found


class _Run:
    def __init__(self, model: Any, roles: Roles, kernels: frozenset[str], fault: Fault) -> None:
        self.model, self.roles, self.kernels, self.fault = model, roles, kernels, fault
        self.kind = KINDS[fault.kind] if fault.kind else None
        self.golden = kernels == {"eager"} and not fault.kind
        self.named = {role: name.format(fault.layer) for role, name in vars(roles).items() if name and fault.kind}
        self.rotary: dict[int, tuple[Tensor, Tensor]] = {}

    def prepare(self, hooks: ExitStack) -> None:
        """Set the attention of the run."""
        from transformers import AttentionInterface
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask

        AttentionInterface.register("planted", self.attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register("planted", eager_mask)
        self.model.set_attn_implementation("eager" if self.golden else "planted")
        for module in self.model.modules():
            if hasattr(module, "layer_idx") and type(module).__name__.endswith("Attention") and not self.golden:
                hooks.callback(module.register_forward_pre_hook(self._before_attention, with_kwargs=True).remove)

    def _before_attention(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "position_embeddings" not in kwargs:
            return None
        rotary = kwargs["position_embeddings"]
        if self.kind is not None and self.kind.positions is not None and module.layer_idx == self.fault.layer:
            rotary = self.kind.positions(*rotary)
        self.rotary[module.layer_idx] = rotary
        return args, {**kwargs, "position_embeddings": rotary}

    def output(self, name: str, module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        """Return what a module returns in this run."""
        if self.golden:
            return out
        kind = self.kind
        faulty = kind is not None and self.named[kind.roles[0]] == name
        new = out
        if isinstance(module, nn.Linear):
            new = self._linear(name, module, args[0], out)
        elif type(module).__name__.endswith("RMSNorm") and "norm" in self.kernels:
            new = _rms_norm(args[0], module)
        elif isinstance(module, nn.LayerNorm) and "norm" in self.kernels:
            new = _layer_norm(args[0], module)
        if kind is not None and faulty and kind.output is not None:
            new = kind.output(new, args[0], module)
        return new

    def _linear(self, name: str, module: nn.Linear, x: Tensor, out: Tensor) -> Tensor:
        weight, bias, changed = self._weights(name, module)
        parts = 2 if "halves" in self.kernels else 1
        if "summands" in self.kernels and any(_same(name, role) for role in (self.roles.o, self.roles.down)):
            parts = _FRACTION
        if parts == 1 and not changed:
            return out
        cuts = [part.shape[-1] for part in x[:1].tensor_split(parts, -1)]
        summands = [functional.linear(*each) for each in zip(x.split(cuts, -1), weight.split(cuts, 1), strict=True)]
        total = summands[0]
        for summand in summands[1:]:
            total = total + summand
        return total if bias is None else total + bias

    def _weights(self, name: str, module: nn.Linear) -> tuple[Tensor, Tensor | None, bool]:
        """Return the weight and bias that a projection uses, and whether they differ from its own."""
        kind, weight = self.kind, module.weight
        swapped = [self.named[role] for role in kind.swap] if kind is not None and kind.swap is not None else []
        if name in swapped:
            other = self.model.get_submodule(swapped[1 - swapped.index(name)])
            return other.weight, other.bias, True
        if kind is None or kind.weight is None or self.named[kind.roles[0]] != name:
            return weight, module.bias, False
        named = dict(self.model.named_modules())
        pattern = getattr(self.roles, kind.roles[0])
        others = (pattern.format(self.fault.layer + step) for step in (1, -1))
        following = next(named[each].weight for each in others if each in named)
        return kind.weight(weight.float(), following.float()).to(weight.dtype), module.bias, True

    def attention(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Attend by another kernel, with the layer's fault."""
        tokens, keys = query.shape[2], key.shape[2]
        mask = attention_mask
        if mask is None:
            causal = torch.full((tokens, keys), torch.finfo(query.dtype).min).triu(1)
            mask = (causal if self.roles is not BERT else torch.zeros(tokens, keys)).to(query.dtype)[None, None]
        mask = mask[..., :keys].expand(query.shape[0], 1, tokens, keys)
        scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        call = Attend(query, key, value, mask, scale, self.rotary.get(module.layer_idx))
        if self.kind is not None and self.kind.attention is not None and module.layer_idx == self.fault.layer:
            self.kind.attention(call)
        times = call.q.shape[1] // call.k.shape[1]
        repeat = (
            (lambda t: t.repeat(1, times, 1, 1))
            if call.groups == "repeated"
            else (lambda t: t.repeat_interleave(times, 1))
        )
        q, k, v = call.q, repeat(call.k), repeat(call.v)
        if "online" in self.kernels:
            out = _online(q, k, v, call.mask, call.scale)
        elif "sdpa" in self.kernels:
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=call.mask, scale=call.scale)
        if call.probabilities is not None or not self.kernels & {"sdpa", "online"}:
            scores = torch.matmul(q, k.transpose(2, 3)) * call.scale + call.mask
            change = call.probabilities or (lambda p: p)
            out = torch.matmul(change(functional.softmax(scores.float(), -1).to(q.dtype)), v)
        return call.after(out.transpose(1, 2).contiguous()), None


def _same(name: str, pattern: str) -> bool:
    head, _, tail = pattern.partition("{}")
    return name.startswith(head) and name.endswith(tail) and name[len(head) : len(name) - len(tail)].isdecimal()


def _online(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attend with a softmax in blocks of keys, rescaled when larger scores come (arXiv 2205.14135)."""
    highest = torch.full((*q.shape[:3], 1), -math.inf)
    total, out = torch.zeros_like(highest), torch.zeros(q.shape[:3] + v.shape[3:])
    for begin in range(0, k.shape[2], _BLOCK):
        at = slice(begin, begin + _BLOCK)
        scores = (torch.matmul(q, k[:, :, at].transpose(2, 3)).float() * scale) + mask[..., at].float()
        peak = torch.maximum(highest, scores.amax(-1, keepdim=True))
        weights, shrink = torch.exp(scores - peak), torch.exp(highest - peak)
        total = total * shrink + weights.sum(-1, keepdim=True)
        out = out * shrink + torch.matmul(weights.to(v.dtype), v[:, :, at]).float()
        highest = peak
    return (out / total).to(q.dtype)


def _rms_norm(x: Tensor, module: Any) -> Tensor:
    wide = x.float()
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", 1e-6))
    weight = module.weight.float() + (1.0 if "Gemma" in type(module).__name__ else 0.0)
    return ((wide * weight) / (wide.pow(2).mean(-1, keepdim=True) + eps).sqrt()).to(x.dtype)


def _layer_norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + module.eps).sqrt()
    return (normed * module.weight + module.bias).to(x.dtype)


def _half_turn(x: Tensor) -> Tensor:
    one, two = x.chunk(2, -1)
    return torch.cat([-two, one], -1)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.float().unsqueeze(1), sin.float().unsqueeze(1)
    return (x.float() * cos + _half_turn(x.float()) * sin).to(x.dtype)


def _has_rope(roles: Roles, config: Any) -> bool:
    return roles is not BERT


def _off_by_one(call: Attend) -> None:
    assert call.rotary is not None
    cos, sin = call.rotary
    call.q = _turn(call.q, cos[:, 1:2], sin[:, 1:2])  # the angles of position 1


def _head_without_rope(call: Attend) -> None:
    assert call.rotary is not None
    cos, sin = call.rotary
    call.q = torch.cat([_turn(call.q[:, :1], cos, -sin), call.q[:, 1:]], 1)


def _interleave_rotary(call: Attend) -> None:
    assert call.rotary is not None
    cos, sin = call.rotary

    def turn(x: Tensor) -> Tensor:
        plain = _turn(x, cos, -sin).float()
        half = cos.shape[-1] // 2
        c, s = cos[..., :half].float().unsqueeze(1), sin[..., :half].float().unsqueeze(1)
        even, odd = plain[..., 0::2], plain[..., 1::2]
        return torch.stack([even * c - odd * s, even * s + odd * c], -1).flatten(-2).to(x.dtype)

    call.q, call.k = turn(call.q), turn(call.k)


def _mask_off_by_one(call: Attend) -> None:
    lowest = torch.finfo(call.q.dtype).min
    if (call.mask[0, 0, 0] < 0).any():  # causal
        call.mask = torch.full(call.mask.shape[-2:], lowest).triu(2).to(call.q.dtype)[None, None].expand_as(call.mask)
    else:
        call.mask = call.mask.clone()
        call.mask[..., -1] = lowest


def _drop_mask(call: Attend) -> None:
    call.mask = torch.zeros_like(call.mask)


def _mask_first(call: Attend) -> None:
    call.mask = call.mask.clone()
    call.mask[..., 1:, 0] = torch.finfo(call.q.dtype).min


def _short_window(call: Attend) -> None:
    far = torch.ones(call.mask.shape[-2:], dtype=torch.bool).tril(-8)
    call.mask = call.mask.masked_fill(far, torch.finfo(call.q.dtype).min)


def _stale(call: Attend) -> None:
    """Overwrite a cache slot after token 23: later tokens read the keys and values of token 2 for token 20."""
    tokens = call.q.shape[2]
    if tokens < 28:
        return
    call.after = _attend_late(call, lambda k, v: (_overwrite(k, 20, 2), _overwrite(v, 20, 2)), 24)


def _overwrite(x: Tensor, to: int, origin: int) -> Tensor:
    new = x.clone()
    new[:, :, to] = x[:, :, origin]
    return new


def _attend_late(call: Attend, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], first: int) -> Any:
    """Return a change of the output by which rows from `first` on attend to changed keys and values."""
    times = call.q.shape[1] // call.k.shape[1]
    k, v = (each.repeat_interleave(times, 1) for each in change(call.k, call.v))
    late = functional.scaled_dot_product_attention(call.q, k, v, attn_mask=call.mask, scale=call.scale).transpose(1, 2)
    return lambda out: torch.cat([out[:, :first], late[:, first:]], 1)


def _set(**changes: Callable[[Attend], Any]) -> Callable[[Attend], None]:
    def act(call: Attend) -> None:
        for name, value in changes.items():
            setattr(call, name, value(call))

    return act


def _row(out: Tensor, number: int) -> int:
    return min(number, out.shape[1] - 1)


def _with_row(out: Tensor, number: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    new = out.clone()
    at = _row(out, number)
    new[:, at] = change(out[:, at])
    return new


def _clamp(share: float) -> Callable[[Tensor, Tensor, nn.Module], Tensor]:
    return lambda out, x, m: out.clamp(-share * float(out.float().std()), share * float(out.float().std()))


def _clamp_massive(out: Tensor, x: Tensor, m: nn.Module) -> Tensor:
    """Clamp the one largest value to a quarter, as a type of smaller range does."""
    new = out.clone()
    at = int(out.abs().flatten().argmax())
    new.view(-1)[at] = out.flatten()[at] / 4
    return new


def _by_tensor(bits: int) -> Callable[[Tensor, Any], Tensor]:
    top = 2 ** (bits - 1) - 1
    return lambda w, _: (w / (w.abs().max() / top)).round().clamp(-top, top) * (w.abs().max() / top)


def _by_channel(bits: int) -> Callable[[Tensor, Any], Tensor]:
    top = 2 ** (bits - 1) - 1

    def quantise(w: Tensor, _: Any) -> Tensor:
        scale = w.abs().amax(1, keepdim=True) / top
        return (w / scale).round().clamp(-top, top) * scale

    return quantise


def _by_group(bits: int, group: int) -> Callable[[Tensor, Any], Tensor]:
    return lambda w, _: _by_channel(bits)(w.reshape(-1, group), None).reshape(w.shape)


def _float8(w: Tensor, _: Any) -> Tensor:
    scale = w.abs().max() / 448
    return (w / scale).to(torch.float8_e4m3fn).float() * scale


def _flipped_part(w: Tensor, _: Any) -> Tensor:
    third = w.shape[0] // 3
    return torch.cat([w[:third].flip(0), w[third:]])


def _head_zero(w: Tensor, _: Any) -> Tensor:
    new = w.clone()
    new[: w.shape[0] // 3] = 0
    return new


def _unwritten_tile(out: Tensor, x: Tensor, m: nn.Module) -> Tensor:
    new = out.clone()
    new[:, 8:16, 128:256] = 0
    return new


def _last_rows(out: Tensor, x: Tensor, m: nn.Module) -> Tensor:
    new = out.clone()
    new[:, -8:] = 0
    return new


def _dropout(out: Tensor, x: Tensor, m: nn.Module) -> Tensor:
    kept = torch.rand(out.shape, generator=torch.Generator().manual_seed(7)) > 0.1
    return (out * kept / 0.9).to(out.dtype)


def _own_eps(out: Tensor, x: Tensor, m: Any) -> Tensor:
    size = x.float().pow(2).mean(-1, keepdim=True)
    eps = 0.05 * float(size.median())
    return (out.float() * (size / (size + eps)).sqrt()).to(out.dtype)


def _norm_weight(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, nn.Module], Tensor]:
    def apply(out: Tensor, x: Tensor, m: Any) -> Tensor:
        if isinstance(m, nn.LayerNorm):
            return (
                functional.layer_norm(x.float(), x.shape[-1:], None, None, m.eps) * change(m.weight.float()) + m.bias
            ).to(out.dtype)
        weight = m.weight.float() + (1.0 if "Gemma" in type(m).__name__ else 0.0)
        safe = torch.where(weight == 0, torch.ones_like(weight), weight)
        return (out.float() / safe * change(weight)).to(out.dtype)

    return apply


def _without_mean(out: Tensor, x: Tensor, m: Any) -> Tensor:
    wide = x.float() - x.float().mean(-1, keepdim=True)
    weight = m.weight.float() + (1.0 if "Gemma" in type(m).__name__ else 0.0)
    eps = getattr(m, "variance_epsilon", getattr(m, "eps", 1e-6))
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight).to(out.dtype)


def _to(dtype: torch.dtype) -> Callable[[Tensor, Tensor, nn.Module], Tensor]:
    return lambda out, x, m: out.to(dtype).to(out.dtype)


def _nan(out: Tensor, x: Tensor, m: nn.Module) -> Tensor:
    new = out.clone()
    new[:, _row(out, 11), 17:20] = math.nan
    return new


def _coarse_probabilities(p: Tensor) -> Tensor:
    return (p.float() * 448).to(torch.float8_e4m3fn).float().div(448).to(p.dtype)


def _has_groups(roles: Roles, config: Any) -> bool:
    heads, keys = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    return keys is not None and 1 < keys < heads


def _rms(roles: Roles, config: Any) -> bool:
    return roles is not BERT


def _h(*names: str) -> frozenset[str]:
    return frozenset(names)


KINDS: dict[str, Kind] = {
    "rope off by one": Kind(("context",), attention=_off_by_one, needs=_has_rope),
    "rope missing on a head": Kind(("context",), attention=_head_without_rope, needs=_has_rope),
    "rope interleaved": Kind(("context",), attention=_interleave_rotary, needs=_has_rope),
    "rope missing": Kind(
        ("context",), positions=lambda c, s: (torch.ones_like(c), torch.zeros_like(s)), needs=_has_rope
    ),
    "rope of twice the angle": Kind(("context",), positions=lambda c, s: (c * c - s * s, 2 * s * c), needs=_has_rope),
    "scores not scaled": Kind(("context",), attention=_set(scale=lambda c: 1.0)),
    "scores scaled twice": Kind(("context",), attention=_set(scale=lambda c: c.scale * c.scale)),
    "mask off by one": Kind(("context",), also=_h("last rows"), attention=_mask_off_by_one),
    "mask missing": Kind(("context",), attention=_drop_mask, needs=_has_rope),
    "first token masked": Kind(("context",), attention=_mask_first),
    "window too short": Kind(("context",), _h("from a row on"), attention=_short_window),
    "stale cache slot": Kind(("context",), _h("from a row on", "last rows"), attention=_stale, needs=_has_rope),
    "probabilities in float8": Kind(
        ("context",), also=_h("even error"), attention=_set(probabilities=lambda c: _coarse_probabilities)
    ),
    "heads swapped": Kind(
        ("context",),
        also=_h("permuted channels"),
        attention=_set(after=lambda c: lambda o: o[:, :, [1, 0, *range(2, o.shape[2])]]),
    ),
    "heads of another group": Kind(("context",), attention=_set(groups=lambda c: "repeated"), needs=_has_groups),
    "rows shifted": Kind(("context",), _h("shifted rows"), attention=_set(after=lambda c: lambda o: o.roll(1, 1))),
    "one token wrong": Kind(
        ("context",), _h("one row"), attention=_set(after=lambda c: lambda o: _with_row(o, 17, lambda r: r.flip(-1)))
    ),
    "two tokens exchanged": Kind(
        ("down",), _h("permuted rows"), output=lambda o, x, m: o[:, [0, 1, 5, 3, 4, 2, *range(6, o.shape[1])]]
    ),
    "scaled by 1.04": Kind(("o",), _h("scale"), output=lambda o, x, m: o * 1.04),
    "scaled by 1.2": Kind(("down",), _h("scale"), output=lambda o, x, m: o * 1.2),
    "reduced twice": Kind(("down",), _h("scale"), output=lambda o, x, m: o * 2),
    "summand missing": Kind(
        ("down",), weight=lambda w, _: torch.cat([w[:, : w.shape[1] // 2], 0 * w[:, w.shape[1] // 2 :]], 1)
    ),
    "tail of a sum missing": Kind(("down",), weight=lambda w, _: torch.cat([w[:, :-64], 0 * w[:, -64:]], 1)),
    "k and v exchanged": Kind(("k", "v"), _h("another label"), swap=("k", "v")),
    "gate and up exchanged": Kind(
        ("gate", "up"), _h("another label"), swap=("gate", "up"), needs=lambda r, c: bool(r.gate)
    ),
    "slice of q reversed": Kind(("q",), _h("permuted channels", "reversed", "stretch channel"), weight=_flipped_part),
    "v reversed": Kind(("v",), _h("permuted channels", "reversed"), weight=lambda w, _: w.flip(0)),
    "part of v zero": Kind(("v",), _h("zeros", "constant channels"), weight=_head_zero),
    "weights of another layer": Kind(("up",), weight=lambda w, other: other),
    "o transposed": Kind(
        ("o",),
        weight=lambda w, _: w.T,
        needs=lambda r, c: (
            c.hidden_size
            == c.num_attention_heads * (getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads)
        ),
    ),
    "offset": Kind(("down",), _h("offset"), output=lambda o, x, m: o + (0.5 * o.float().std()).to(o.dtype)),
    "offset by channel": Kind(
        ("up",),
        _h("offset by channel"),
        output=lambda o, x, m: (
            o
            + (0.3 * o.float().std() * torch.randn(o.shape[-1], generator=torch.Generator().manual_seed(3))).to(o.dtype)
        ),
    ),
    "saturated": Kind(("up",), _h("saturation"), output=_clamp(1.0)),
    "largest value clamped": Kind(("layer",), _h("one value"), output=_clamp_massive),
    "cast to float8": Kind(("up",), _h("down-cast"), output=_to(torch.float8_e4m3fn)),
    "cast to bfloat16": Kind(("up",), _h("down-cast"), output=_to(torch.bfloat16)),
    "weights in int8 by tensor": Kind(("up",), _h("even error"), weight=_by_tensor(8)),
    "weights in int4 by groups": Kind(("up",), _h("even error"), weight=_by_group(4, 32)),
    "weights in float8": Kind(("down",), _h("even error"), weight=_float8),
    "weights in int4 by tensor": Kind(("down",), also=_h("even error"), weight=_by_tensor(4)),
    "norm with another epsilon": Kind(
        ("norm",), _h("scale by row"), _h("scale"), output=_own_eps, needs=lambda r, c: bool(r.norm)
    ),
    "norm without weight": Kind(("norm",), _h("scale by channel"), output=_norm_weight(torch.ones_like), needs=_rms),
    "norm weight plus one": Kind(
        ("norm",), _h("scale by channel", "scale"), output=_norm_weight(lambda w: w + 1), needs=_rms
    ),
    "norm subtracts the mean": Kind(
        ("norm",), also=_h("offset by row", "offset by channel"), output=_without_mean, needs=_rms
    ),
    "tile unwritten": Kind(("up",), _h("zeros"), output=_unwritten_tile),
    "last rows unwritten": Kind(("down",), _h("zeros", "last rows"), output=_last_rows),
    "dropout left on": Kind(("down",), _h("dropout"), output=_dropout),
    "residual missing": Kind(("layer",), output=lambda o, x, m: o - x, needs=_rms),
    "residual twice": Kind(("layer",), also=_h("scale"), output=lambda o, x, m: o + x, needs=_rms),
    "rows of a block reversed": Kind(
        ("down",),
        _h("permuted rows"),
        output=lambda o, x, m: o[:, [*range(4), *range(11, 3, -1), *range(12, o.shape[1])]],
    ),
    "one row of another layer": Kind(
        ("layer",), _h("one row"), output=lambda o, x, m: torch.cat([o[:, :9], x[:, 9:10], o[:, 10:]], 1)
    ),
    "NaN in a row": Kind(("up",), place="row 11 holds ", output=_nan),
}
"""All kinds of faults. Those of attention first show at the projection behind it, which mixes heads and channels."""


def culprits(roles: Roles, fault: Fault) -> tuple[str, ...]:
    """Return the labels that are wrong by themselves, in the order of the computation."""
    return tuple(getattr(roles, role).format(fault.layer) for role in KINDS[fault.kind].roles)
