"""The original of an engine's model in a script of its own: `aclcmp --exec "python watched_golden.py MODEL"`."""

import sys

import torch

TOKENS = list(range(7, 23))
"""The prompt."""

if __name__ == "__main__":
    from transformers import AutoModelForCausalLM

    from aclcmp import rows, watch

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, attn_implementation="eager")
    watch(model, "golden", include=["**.*_proj"], weights=3)
    with torch.no_grad(), rows("1", range(len(TOKENS)), TOKENS):  # the plug-in names the rows of all labels
        model(torch.tensor([TOKENS]), use_cache=False)
