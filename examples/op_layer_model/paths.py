"""The low-level labels: the file of the library's dump that holds the tensor of a name in the framework.

The files of a node lie in its folder, `{number}_{name}`, within the folder of the node that it belongs to.
"""

KERNELS = {
    "attn.scores": "0_QkMatmulKernel/after/outTensor0.bin",
    "attn.softmax": "2_SoftmaxKernel/after/outTensor0.bin",
    "attn.values": "3_PvMatmulKernel/after/outTensor0.bin",
}
"""Within the attention operation. What the mask kernel gives out is not labelled: its lowest numbers drown all else."""

OPERATIONS = {
    "input_norm": "0_RmsNormOperation/after/outTensor0.bin",
    "attn.v": "1_FusedQkvLinearOperation/after/outTensor2.bin",
    "attn.q": "2_RopeOperation/after/outTensor0.bin",
    "attn.k": "2_RopeOperation/after/outTensor1.bin",
    "attn.context": "3_SelfAttentionOperation/after/outTensor0.bin",
    "attn.out": "4_LinearAllReduceOperation/after/outTensor0.bin",
    "attn.residual": "5_AddOperation/after/outTensor0.bin",
    "post_norm": "6_RmsNormOperation/after/outTensor0.bin",
    "mlp.act": "8_SwigluOperation/after/outTensor0.bin",
    "mlp.out": "9_LinearAllReduceOperation/after/outTensor0.bin",
}
"""Within a layer."""

LAYERS = {"out": "after/outTensor0.bin"}
"""Within the layer's own folder."""

_ATTENTION = "SelfAttentionOperation"
_LAYER = "ChatGlmLayerEncoder"
_MODEL = "ChatGlmModelEncoder"


def low_level_paths(granularity: str, layer: int) -> dict[str, str]:
    """Return the file of each name of a layer that lies inside what was replaced: "op", "layer" or "model"."""
    if granularity == "op":
        return {name: f"{layer}_{_ATTENTION}/{path}" for name, path in KERNELS.items()}
    inside = OPERATIONS | {name: f"3_{_ATTENTION}/{path}" for name, path in KERNELS.items()}
    if granularity == "layer":
        return {name: f"{layer}_{_LAYER}/{path}" for name, path in inside.items()}
    return {name: f"0_{_MODEL}/{layer}_{_LAYER}/{path}" for name, path in (inside | LAYERS).items()}
