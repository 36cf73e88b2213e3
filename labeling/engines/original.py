"""The model from which golden is computed: a folder of transformers, or a quantised checkpoint as it is meant."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aclcmp.labeling.engines.quantised import Checkpoint, put_layers, read_checkpoint, read_tensors
from aclcmp.labeling.engines.quantised_config import Scheme, read_schemes
from aclcmp.labeling.errors import AclcmpError

_MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Original:
    """A model folder; of a quantised one also what its tensors mean."""

    path: Path
    checkpoint: Checkpoint | None = None
    schemes: tuple[Scheme, ...] = ()

    @property
    def scheme(self) -> str:
        """The names of its schemes, "" if it is not quantised."""
        return ", ".join(dict.fromkeys(each.name for each in self.schemes))

    @property
    def rounds_inputs(self) -> bool:
        """Whether a scheme rounds what its layers are given."""
        return any(each.inputs is not None for each in self.schemes)

    def load(self, dtype: Any) -> Any:
        """Return the model of transformers in a type of torch. Raises AclcmpError."""
        try:
            from transformers import AutoConfig, AutoModelForCausalLM
        except ImportError:
            raise AclcmpError("transformers is not installed: pip install transformers") from None
        try:
            if self.checkpoint is None:
                options = {"dtype": dtype, "attn_implementation": "eager"}
                return AutoModelForCausalLM.from_pretrained(self.path, **options).eval()
            config = AutoConfig.from_pretrained(self.path)
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager").eval()
            self._fill(model)
        except (OSError, ValueError) as error:
            raise AclcmpError(f"{self.path}: {' '.join(str(error).split())[:300]}") from None
        return model

    def _fill(self, model: Any) -> None:
        """Put the weights of the checkpoint into its model."""
        assert self.checkpoint is not None
        weights = {f"{name}.weight": layer.weight for name, layer in self.checkpoint.layers.items()}
        try:
            lost, unknown = model.load_state_dict(self.checkpoint.state | weights, strict=False)
        except RuntimeError as error:
            raise AclcmpError(f"{self.path}: {' '.join(str(error).split())[:300]}") from None
        tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - dict(
            model.named_parameters()
        ).keys()
        for names, what in ((set(lost) - tied, "are not in the checkpoint"), (set(unknown), "are not in the model")):
            if names:
                raise AclcmpError(f"{self.path}: {', '.join(sorted(names)[:_MOST_NAMED])} {what}")
        put_layers(model, self.checkpoint.layers)


def read_original(path: Path, unquantised: Path | None = None) -> Original:
    """Read a model folder; `unquantised` is the folder from which a quantised checkpoint was made.

    Raises AclcmpError for a quantisation that is not known, and for checkpoints that do not fit each other.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AclcmpError(f"{path} is no model folder: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise AclcmpError(f"{path / 'config.json'} cannot be read: {error}") from None
    schemes = read_schemes(config)
    if not schemes:
        return Original(path)
    checkpoint = read_checkpoint(path, schemes)
    if unquantised is not None:
        _add_original(checkpoint, unquantised)
    return Original(path, checkpoint, schemes)


def _add_original(checkpoint: Checkpoint, path: Path) -> None:
    """Take the weights from which the quantised layers were made."""
    stored = read_tensors(path)
    for name, layer in checkpoint.layers.items():
        weight = stored.get(f"{name}.weight")
        if weight is None or weight.shape != layer.weight.shape or not weight.dtype.is_floating_point:
            raise AclcmpError(
                f"{path} is not the original of the checkpoint: {name}.weight is another, or is not there"
            )
        layer.original = weight.float()
