"""A stand-in for an accelerated library such as ATB: a decoder of layers of operations of kernels, on the CPU.

When ATB's environment variables say so it dumps its own tensors in ATB's bytes and folders. It knows nothing of aclcmp.
"""

from .attention import SelfAttentionOperation
from .decoder import ChatGlmLayerEncoder, ChatGlmModelEncoder, Heads, LayerWeights
from .faults import FAULTS, plant
from .graph import Root

__all__ = [
    "FAULTS",
    "ChatGlmLayerEncoder",
    "ChatGlmModelEncoder",
    "Heads",
    "LayerWeights",
    "Root",
    "SelfAttentionOperation",
    "plant",
]
