"""Stand-ins for vLLM with vllm-ascend, and for SGLang: packages with the names that the plug-ins use, and no more.

They are SIMULATED: a model of two layers in torch, alone or on one rank of two, with classes and calls named and
shaped as in the source of vLLM 0.32.0, vllm-ascend 182b75ea84 and SGLang 0.5.23. They show nothing of the engines.
"""

LAYERS = """
import sys, types
import torch
from torch import nn

def module(name, **content):
    found = sys.modules.setdefault(name, types.ModuleType(name))
    parent, _, own = name.rpartition(".")
    if parent:
        setattr(module(parent), own, found)
    found.__path__ = []
    for each, value in content.items():
        setattr(found, each, value)
        if isinstance(value, type):
            value.__module__ = name
    return found

class Group:
    def __init__(self, ranks, rank):
        self.ranks, self.world_size, self.rank_in_group = ranks, len(ranks), rank

group = Group([0], 0)

class LinearBase(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / 4)
        self.tp_group, self.tp_size = group, group.world_size
    def forward(self, x, forward_batch=None):
        return x @ self.weight.T, None

class ReplicatedLinear(LinearBase):
    pass

class ColumnParallelLinear(LinearBase):
    gather_output = False

class MergedColumnParallelLinear(ColumnParallelLinear):
    def __init__(self, inputs, sizes):
        super().__init__(inputs, sum(sizes) // group.world_size)
        self.output_sizes = sizes

class QKVParallelLinear(ColumnParallelLinear):
    def __init__(self, inputs, head_size, heads, kv_heads):
        self_size = head_size * (heads + 2 * kv_heads) // group.world_size
        super().__init__(inputs, self_size)
        self.head_size = self.v_head_size = head_size
        self.num_heads, self.num_kv_heads = heads // group.world_size, kv_heads // group.world_size
        self.num_kv_head_replicas = 1
        self.q_proj_shard_size = self.num_heads * head_size
        self.kv_proj_shard_size = self.v_proj_shard_size = self.num_kv_heads * head_size

class RowParallelLinear(LinearBase):
    input_is_parallel = True
    def __init__(self, inputs, outputs, reduce_results=True):
        super().__init__(inputs // group.world_size, outputs)
        self.reduce_results = reduce_results

class RMSNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
    def forward(self, x, residual=None):
        if residual is not None:
            x = residual = x + residual
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        return normed if residual is None else (normed, residual)

class GemmaRMSNorm(RMSNorm):
    pass

class LayerNorm(nn.LayerNorm):
    pass

class VocabParallelEmbedding(nn.Embedding):
    pass

class ParallelLMHead(VocabParallelEmbedding):
    pass

def define_layers(package):
    linear = [ReplicatedLinear, ColumnParallelLinear, MergedColumnParallelLinear, QKVParallelLinear, RowParallelLinear]
    module(f"{package}.linear", **{each.__name__: each for each in linear})
    module(f"{package}.layernorm", RMSNorm=RMSNorm, GemmaRMSNorm=GemmaRMSNorm, LayerNorm=LayerNorm)
    module(
        f"{package}.vocab_parallel_embedding",
        VocabParallelEmbedding=VocabParallelEmbedding, ParallelLMHead=ParallelLMHead,
    )

class Attention(nn.Module):
    def __init__(self, reduce_results):
        super().__init__()
        self.qkv_proj = QKVParallelLinear(8, 2, 4, 2)
        self.o_proj = RowParallelLinear(8, 8, reduce_results)
    def forward(self, positions, hidden):
        qkv = self.qkv_proj(hidden)[0]
        q, k, v = qkv.split([qkv.shape[-1] // each for each in (2, 4, 4)], dim=-1)
        return self.o_proj(q * torch.cat([k, v], -1) + positions[:, None])[0]

class Mlp(nn.Module):
    def __init__(self, reduce_results):
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(8, [16, 16])
        self.down_proj = RowParallelLinear(16, 8, reduce_results)
    def forward(self, hidden):
        gate, up = self.gate_up_proj(hidden)[0].chunk(2, dim=-1)
        return self.down_proj(torch.nn.functional.silu(gate) * up)[0]
"""

SGLANG = (
    LAYERS
    + """
import dataclasses, enum

class HookType(enum.Enum):
    BEFORE, AFTER, AROUND, REPLACE = "before", "after", "around", "replace"

class HookRegistry:
    hooks = []
    @classmethod
    def register(cls, target, hook, hook_type=HookType.AFTER, *, source=None):
        cls.hooks.append((target, hook, hook_type))
    @classmethod
    def apply_hooks(cls):
        import pkgutil
        for target, hook, kind in cls.hooks:
            owner, name = pkgutil.resolve_name(target.rpartition(".")[0]), target.rpartition(".")[2]
            raw = owner.__dict__[name]
            original = raw.__func__ if isinstance(raw, classmethod) else raw
            def wrapper(*args, original=original, hook=hook, kind=kind, **kwargs):
                if kind is HookType.AROUND:
                    return hook(original, *args, **kwargs)
                result = original(*args, **kwargs)
                changed = hook(result, *args, **kwargs)
                return result if changed is None else changed
            setattr(owner, name, classmethod(wrapper) if isinstance(raw, classmethod) else wrapper)

class ForwardMode(enum.IntEnum):
    EXTEND, DECODE, MIXED, IDLE, TARGET_VERIFY = 1, 2, 3, 4, 5

class ResidualStream:
    def __init__(self):
        self.residual = self.pending = None
    def snapshot(self, hidden):
        assert hidden is self.pending
        return hidden + self.residual

@dataclasses.dataclass
class ForwardBatch:
    forward_mode: object
    input_ids: object
    positions: object
    seq_lens: object
    rids: object = None
    extend_seq_lens: object = None
    extend_seq_lens_cpu: object = None
    residual_stream: object = None
    @classmethod
    def init_new(cls, batch, model_runner):
        return cls(**batch.fields, rids=[each.rid for each in batch.reqs])

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(False), Mlp(False)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(8), RMSNorm(8)
    def read(self, norm, hidden, stream):
        if stream.residual is None:
            stream.residual = hidden
            return norm(hidden)
        hidden, stream.residual = norm(hidden, stream.residual)
        return hidden
    def forward(self, positions, hidden, forward_batch):
        stream = forward_batch.residual_stream
        hidden = self.self_attn(positions=positions, hidden=self.read(self.input_layernorm, hidden, stream))
        stream.pending = self.mlp(self.read(self.post_attention_layernorm, hidden, stream))
        return stream.pending

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(32, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.norm = RMSNorm(8)
    def forward(self, input_ids, positions, forward_batch):
        forward_batch.residual_stream = stream = ResidualStream()
        hidden = self.embed_tokens(input_ids)
        for layer in self.layers:
            hidden = layer(positions, hidden, forward_batch)
        return self.norm(hidden, stream.residual)[0]

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.model, self.lm_head = Body(), ParallelLMHead(32, 8)
    def forward(self, input_ids, positions, forward_batch):
        hidden = self.model(input_ids, positions, forward_batch)
        last = torch.arange(len(forward_batch.seq_lens))
        if forward_batch.forward_mode != ForwardMode.DECODE:
            last = torch.cumsum(forward_batch.extend_seq_lens, 0) - 1
        return types.SimpleNamespace(next_token_logits=hidden[last] @ self.lm_head.weight.T)

class ModelRunner:
    def __init__(self, is_draft_worker=False):
        self.is_draft_worker = is_draft_worker
    def load_model(self):
        self.model = Model()
    def forward(self, forward_batch, skip_attn_backend_init=None, pp_proxy_tensors=None):
        logits = self.model(forward_batch.input_ids, forward_batch.positions, forward_batch)
        return types.SimpleNamespace(logits_output=logits, can_run_graph=False)

def batch_of(mode, rows, prompts):
    # [(request, first position, tokens)], as the scheduler makes a batch of them
    tokens = torch.tensor([token for _, _, row in rows for token in row])
    positions = torch.tensor([start + place for _, start, row in rows for place in range(len(row))])
    lengths = [len(row) for _, _, row in rows]
    fields = dict(forward_mode=mode, input_ids=tokens, positions=positions,
                  seq_lens=torch.tensor([start + len(row) for _, start, row in rows]))
    if mode != ForwardMode.DECODE:
        fields |= dict(extend_seq_lens=torch.tensor(lengths), extend_seq_lens_cpu=lengths)
    reqs = [types.SimpleNamespace(rid=name, origin_input_ids=prompts[name]) for name, _, _ in rows]
    return types.SimpleNamespace(fields=fields, reqs=reqs)

define_layers("sglang.srt.layers")
module("sglang.srt.plugins.hook_registry", HookRegistry=HookRegistry, HookType=HookType)
module("sglang.srt.model_executor.model_runner", ModelRunner=ModelRunner)
module("sglang.srt.model_executor.forward_batch_info", ForwardBatch=ForwardBatch)
"""
)

ASCEND = (
    LAYERS
    + """
import numpy as np

class WorkerBase:
    def __init__(self, vllm_config, local_rank, rank):
        self.model_runner = None

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(True), Mlp(True)
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(8), RMSNorm(8)
    def forward(self, positions, hidden, residual):
        if residual is None:
            residual, hidden = hidden, self.input_layernorm(hidden)
        else:
            hidden, residual = self.input_layernorm(hidden, residual)
        hidden, residual = self.post_attention_layernorm(self.self_attn(positions, hidden), residual)
        return self.mlp(hidden), residual

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(32, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.norm = RMSNorm(8)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.model, self.lm_head = Body(), ParallelLMHead(32, 8)
    def forward(self, input_ids, positions, intermediate_tensors=None, inputs_embeds=None):
        hidden, residual = self.model.embed_tokens(input_ids), None
        for layer in self.model.layers:
            hidden, residual = layer(positions, hidden, residual)
        return self.model.norm(hidden, residual)[0]
    def compute_logits(self, hidden):
        return hidden @ self.lm_head.weight.T

def buffer(size):
    tensor = torch.zeros(size, dtype=torch.int64)
    return types.SimpleNamespace(cpu=tensor, gpu=tensor, np=tensor.numpy())

class NPUModelRunner:
    def __init__(self):
        self.query_start_loc, self.input_ids, self.positions = buffer(8), buffer(16), torch.zeros(16, dtype=torch.int64)
        self.requests = {}
    def load_model(self):
        self.model = Model()
        base_loader.process_weights_after_loading(self.model)
    def get_model(self):
        return self.model
    def execute(self, *rows):  # [(request, first position, tokens)]
        lengths = [len(tokens) for _, _, tokens in rows]
        starts, count = [0, *np.cumsum(lengths).tolist()], sum(lengths)
        self.query_start_loc.np[: len(starts)] = starts
        self.input_ids.gpu[:count] = torch.tensor([token for _, _, tokens in rows for token in tokens])
        self.positions[:count] = torch.tensor([start + k for _, start, tokens in rows for k in range(len(tokens))])
        self.input_batch = types.SimpleNamespace(num_reqs=len(rows), req_ids=[f"{each[0]}-0123abcd" for each in rows])
        padded = count + 2
        hidden = self._model_forward(padded, self.input_ids.gpu[:padded], self.positions[:padded], None, None)
        return self.model.compute_logits(hidden[torch.tensor(starts[1:]) - 1])
    def _model_forward(self, num_tokens_padded, input_ids=None, positions=None, intermediate_tensors=None,
                       inputs_embeds=None, **model_kwargs):
        return self.model(input_ids=input_ids, positions=positions, intermediate_tensors=intermediate_tensors,
                          inputs_embeds=inputs_embeds)
    def _dummy_run(self, num_tokens):
        return self._model_forward(num_tokens, self.input_ids.gpu[:num_tokens], self.positions[:num_tokens], None, None)

class NPUWorker(WorkerBase):
    def __init__(self, vllm_config=None, local_rank=0, rank=0):
        super().__init__(vllm_config, local_rank, rank)
        self.model_runner = NPUModelRunner()
    def load_model(self):
        self.model_runner.load_model()

define_layers("vllm.model_executor.layers")
base_loader = module("vllm.model_executor.model_loader.base_loader", process_weights_after_loading=lambda model: None)
module("vllm.model_executor.models.utils", PPMissingLayer=type("PPMissingLayer", (nn.Identity,), {}))
module("vllm.v1.worker.worker_base", WorkerBase=WorkerBase)
module("vllm.distributed.parallel_state", get_tp_group=lambda: group)
"""
)
