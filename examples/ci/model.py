"""A model and its port, which is off by a little in one layer on purpose: what continuous integration would check."""

import torch

import aclcmp


def main() -> None:
    """Compute both and label every layer."""
    made = torch.Generator().manual_seed(0)
    golden = actual = torch.randn(16, 64, generator=made)
    for layer in range(4):
        weight = torch.randn(64, 64, generator=made) / 8
        golden = golden + torch.tanh(golden @ weight)
        step = torch.tanh(actual @ weight)
        actual = actual + (step.bfloat16().float() if layer == 2 else step)  # this kernel rounds, as it is meant to
        aclcmp.set_label("pta", f"layers.{layer}", golden)
        aclcmp.set_label("acl", f"layers.{layer}", actual)


if __name__ == "__main__":
    main()
