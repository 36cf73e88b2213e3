"""Dump the outputs of a small model's modules with msprobe, as one rank; bench_msprobe.py runs it on all ranks.

python dump_activations.py FOLDER PAIRS DRIFT
"""

import json
import sys
from pathlib import Path

import torch
from msprobe.pytorch import PrecisionDebugger
from torch import nn

WIDTH = 1024


class Mixer(nn.Module):
    """A matrix product whose weight is no parameter: msprobe would save those too."""

    def __init__(self) -> None:
        """Draw the weight."""
        super().__init__()
        self.register_buffer("weight", torch.randn(WIDTH, WIDTH) / WIDTH**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the product, of the shape of `x`: (WIDTH, WIDTH)."""
        return x @ self.weight


def main() -> None:
    """Run the model once; DRIFT is the relative error of the weights of this side."""
    folder, pairs, drift = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.manual_seed(rank)
    model = nn.Sequential()
    for _ in range(pairs // 2):
        model.extend((nn.LayerNorm(WIDTH, elementwise_affine=False), Mixer()))
    x = torch.randn(WIDTH, WIDTH)
    for weight in model.buffers():
        weight *= 1 + drift * torch.randn(weight.shape)
    config = folder / f"config{rank}.json"
    tensor = {"scope": [], "list": [], "data_mode": ["output"]}
    config.write_text(
        json.dumps(
            {"task": "tensor", "dump_path": str(folder), "rank": [], "step": [], "level": "L0", "tensor": tensor}
        )
    )
    debugger = PrecisionDebugger(config_path=str(config))
    with torch.no_grad():
        debugger.start(model=model)
        model(x)
        debugger.stop()
    debugger.step()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
