"""Writer of forward passes as SGLang's dumper writes them: by the same hooks, on a real model, into the same files."""

from pathlib import Path
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

BATCH = [f"model.forward_batch_info.{each}" for each in ("input_ids", "seq_lens", "positions")]


class Body(torch.nn.Module):
    """Two layers; a norm returns two tensors, as fused ones do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(16, 8)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(2))
        self.norm = Norm()

    def forward(self, ids: Any) -> Any:
        hidden = self.embed_tokens(ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm(hidden)[0]


class Norm(torch.nn.Module):
    def forward(self, hidden: Any) -> Any:
        return hidden / 2, hidden


class Model(torch.nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model, self.logits_processor = Body(), torch.nn.Linear(8, 16)

    def forward(self, ids: Any) -> Any:
        return self.logits_processor(self.model(ids))


class Dumper:
    """Hooks of the leaves and the body. The dict is written when the body returns, and gets its output only then."""

    def __init__(self, model: Model, folder: Path, skip: int = 0) -> None:
        folder.mkdir(parents=True)
        self.folder, self.skip, self.number, self.current = folder, skip, 0, dict[str, Any]()
        for name, module in model.named_modules():
            if name == "model" or (name and not any(module.children())):
                module.register_forward_hook(lambda _module, args, out, name=name: self.hook(name, args, out))

    def hook(self, name: str, args: Any, output: Any) -> None:
        if name == "model":
            length = len(args[0])
            ids, lengths, places = args[0].clone(), torch.tensor([length]), torch.arange(length)
            self.current |= dict(zip(BATCH, (ids, lengths, places), strict=True))
            self.write()
        if self.skip == 0:
            self.current[name] = list(output) if isinstance(output, tuple) else output.clone()

    def write(self) -> None:
        if self.skip:
            self.skip, self.current = self.skip - 1, {}
            return
        torch.save(self.current, self.folder / f"Pass{self.number:05d}.pt")
        self.number, self.current = self.number + 1, {}


def dump_passes(folder: Path, passes: int = 3, skip: int = 0, wrong: float = 0.0, seed: int = 0) -> list[Any]:
    """Run a model a few times under the dumper; return its logits."""
    model = Model(seed)
    with torch.no_grad():
        model.model.layers[1].bias += wrong
        Dumper(model, folder, skip)
        return [model(torch.arange(5 if number == 0 else 1) + number) for number in range(passes)]


def dump_batches(folder: Path, batches: list[list[tuple[int, list[int]]]], wrong: float = 0.0) -> None:
    """Dump a pass for each batch, whose parts are (first position, tokens) of a request; rows give the values."""
    folder.mkdir(parents=True)
    late: dict[str, Any] = {}
    for number, batch in enumerate(batches):
        tokens = torch.tensor([token for _, row in batch for token in row])
        places = torch.tensor([start + place for start, row in batch for place in range(len(row))])
        lengths = torch.tensor([start + len(row) for start, row in batch])
        hidden = torch.outer(tokens + 10.0 * places, torch.arange(1.0, 5.0))
        hidden[(tokens == 8) & (places == 3)] += wrong
        last = torch.cumsum(torch.tensor([len(row) for _, row in batch]), 0) - 1
        content = {**late, "model.layers.0": hidden, **dict(zip(BATCH, (tokens, lengths, places), strict=True))}
        torch.save(content, folder / f"Pass{number:05d}.pt")
        late = {"model": hidden / 2, "logits_processor": hidden[last] / 4}
