"""One rank of a vLLM engine on a W8A8 checkpoint, with other scales in each round: one start, a run for each round.

    aclcmp --exec "python quantised_rounds.py MODEL FOLDER PROMPTS ROUND..." --ranks 1 --no-compare

PROMPTS is a file with one prompt a line. The weights are kept before vLLM packs them, and packed again with the scales
of a round, by vLLM's own kernel. A round is `clean`, or FAULT:MODULE[:FACTOR], as in
scaled:model.layers.1.mlp.down_proj:1.5.
The first round has the hashes of the weights as they were loaded.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine_rank import open_engine, record_into, runner_of

# isort: split
import torch
from vllm import SamplingParams
from vllm.model_executor.model_loader import base_loader

from aclcmp.labeling.engines.vllm import register

Tensors = dict[str, tuple[torch.Tensor, torch.Tensor]]


def reversed_order(scale: torch.Tensor, factor: float) -> torch.Tensor:
    """The scales of the output channels in another order."""
    return scale.flip(0)


def along_inputs(scale: torch.Tensor, factor: float) -> torch.Tensor:
    """A scale for each of 64 neighbours instead of each channel, as if it lay along the other axis."""
    return scale[: -(-len(scale) // 64)].repeat_interleave(64, 0)[: len(scale)]


def of_tensor(scale: torch.Tensor, factor: float) -> torch.Tensor:
    """The first channel's scale for all of them."""
    return scale[:1].expand_as(scale).clone()


def scaled(scale: torch.Tensor, factor: float) -> torch.Tensor:
    return scale * factor


FAULTS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    each.__name__: each for each in (reversed_order, along_inputs, of_tensor, scaled)
}


class Engine:
    """An engine, its model, and the int8 weights and the scales that it loaded, by module."""

    def __init__(self, model: str) -> None:
        register()
        self.loaded: Tensors = {}
        pack = base_loader.process_weights_after_loading

        def keep_and_pack(module: Any, *args: Any, **kwargs: Any) -> Any:
            for name, part in module.named_modules():
                if hasattr(part, "weight_scale") and hasattr(part, "weight"):
                    self.loaded[name] = (part.weight.detach().clone(), part.weight_scale.detach().clone())
            return pack(module, *args, **kwargs)

        base_loader.process_weights_after_loading = keep_and_pack
        self.llm = open_engine(model, "bfloat16", max_model_len=256)
        self.model = runner_of(self.llm).get_model()

    @contextmanager
    def fault(self, words: str) -> Iterator[None]:
        """Plant a fault."""
        name, _, rest = words.partition(":")
        module, _, factor = rest.partition(":")
        if name == "clean":
            yield
        elif name == "coarse":
            with self._coarse_inputs(module, float(factor or 16)):
                yield
        else:
            self._pack(module, FAULTS[name](self.loaded[module][1], float(factor or 1)))
            yield
            self._pack(module, self.loaded[module][1])

    def _pack(self, name: str, scale: torch.Tensor) -> None:
        """Pack a module's weights with other scales, as vLLM does when it loads them."""
        module = self.model.get_submodule(name)
        weight = self.loaded[name][0].clone()
        module.weight = torch.nn.Parameter(weight, requires_grad=False)
        module.weight_scale = torch.nn.Parameter(scale.clone(), requires_grad=False)
        with torch.device("cpu"):
            default = torch.get_default_dtype()
            torch.set_default_dtype(torch.bfloat16)  # the type of what the kernel returns
            module.scheme.process_weights_after_loading(module)
            torch.set_default_dtype(default)

    @contextmanager
    def _coarse_inputs(self, name: str, factor: float) -> Iterator[None]:
        """The inputs of a module are rounded to multiples that are larger by a factor."""
        module = self.model.get_submodule(name)
        inner = module.forward

        def forward(x: torch.Tensor) -> Any:
            step = x.abs().amax(-1, keepdim=True) / 127 * factor
            return inner((x / step).round() * step)

        module.forward = forward
        yield
        module.forward = inner

    def round(self, words: str, prompts: list[str]) -> None:
        """Answer all prompts with a fault."""
        self.llm.reset_prefix_cache()
        sampling = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
        with self.fault(words):
            self.llm.generate(prompts, sampling, use_tqdm=False)


def play(model: str, folder: str, prompts: str, rounds: list[str]) -> None:
    texts = [line for line in Path(prompts).read_text().splitlines() if line]
    record_into(Path(folder, rounds[0], "shards"))
    engine = Engine(model)
    for number, words in enumerate(rounds):
        if number:
            record_into(Path(folder, words, "shards"))
        engine.round(words, texts)
        print(words, flush=True)


if __name__ == "__main__":
    play(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
