"""Dump of a model at msprobe's level L0, by msprobe 26.2 itself where it is installed, else written alike.

The names, the order and the fields were compared with those of the real one, for plain and tensor-parallel models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@contextmanager
def dumping(model: nn.Module, folder: Path) -> Iterator[None]:
    """Dump one step of this rank below `folder`."""
    if find_spec("msprobe") is not None:
        from msprobe.pytorch import PrecisionDebugger

        debugger = PrecisionDebugger(dump_path=str(folder), task="tensor", level="L0")
        debugger.start(model=model)
        yield
        debugger.stop()
        debugger.step()
    else:
        writer = _Writer(folder / "step0" / (f"rank{dist.get_rank()}" if dist.is_initialized() else "proc4711"))
        writer.hook(model)
        yield
        writer.close()


class _Writer:
    """One rank's folder of one step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = folder / "dump_tensor_data"
        self._files.mkdir(parents=True)
        self._data: dict[str, Any] = {}
        self._calls: dict[str, int] = {}
        self._handles: list[Any] = []

    def hook(self, model: nn.Module) -> None:
        """Dump the inputs, outputs and parameters of every module but the outermost."""
        for name, module in model.named_modules():
            if name and not isinstance(module, nn.ModuleList):
                self._hook(f"Module.{name}.{type(module).__name__}.forward", module)

    def close(self) -> None:
        """Write the indices, as msprobe does when it is stopped."""
        for handle in self._handles:
            handle.remove()
        head = {"task": "tensor", "level": "L0", "framework": "pytorch", "dump_data_dir": str(self._files)}
        (self._folder / "dump.json").write_text(json.dumps(head | {"data": self._data}, indent=1))
        for name in ("stack.json", "construct.json"):
            (self._folder / name).write_text("{}")

    def _hook(self, operation: str, module: nn.Module) -> None:
        given: dict[str, Any] = {}

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            call = self._calls[operation] = self._calls.get(operation, -1) + 1
            name = f"{operation}.{call}"
            given["input_args"] = [self._describe(each, f"{name}.input.{k}") for k, each in enumerate(args)]
            given["input_kwargs"] = {key: self._describe(each, f"{name}.kwargs.{key}") for key, each in kwargs.items()}

        def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            name = f"{operation}.{self._calls[operation]}"
            outputs = output if isinstance(output, tuple) else (output,)
            parameters = module.named_parameters(recurse=False)
            self._data[name] = {
                **given,
                "output": [self._describe(each, f"{name}.output.{k}") for k, each in enumerate(outputs)],
                "parameters": {key: self._describe(each, f"{name}.parameters.{key}") for key, each in parameters},
            }

        self._handles += [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]

    def _describe(self, value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            return self._save(value, name)
        if isinstance(value, (bool, int, float, str)):
            return {"type": type(value).__name__, "value": value}
        if isinstance(value, (tuple, list)):
            return [self._describe(each, f"{name}.{k}") for k, each in enumerate(value)]
        if is_dataclass(value):
            value = {field.name: getattr(value, field.name) for field in fields(value)}
        if isinstance(value, dict):
            return {key: self._describe(each, f"{name}.{key}") for key, each in value.items()}
        return None

    def _save(self, tensor: Tensor, name: str) -> dict[str, Any]:
        local = tensor.detach()
        kind, placed = "torch.Tensor", {}
        if isinstance(local, DTensor):
            kind = "torch.distributed.tensor.DTensor"
            placements = [
                {type(each).__name__: {"dim": each.dim} if each.is_shard() else {}} for each in tensor.placements
            ]
            placed = {"device_mesh": tensor.device_mesh.mesh.tolist(), "placements": placements}
            local = local.to_local()
        torch.save(local.contiguous().clone(), self._files / f"{name}.pt")
        floating = local.is_floating_point()
        return {
            "type": kind,
            "dtype": str(local.dtype),
            "shape": list(local.shape),
            "Max": local.max().item(),
            "Min": local.min().item(),
            "Mean": local.mean().item() if floating else None,
            "Norm": local.norm().item() if floating else None,
            "requires_grad": tensor.requires_grad,
            **placed,
            "data_name": f"{name}.pt",
        }
