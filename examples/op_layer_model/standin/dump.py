"""Dump of one execution: the environment, read each time, says whether there is one, of which tensors, and where.

- `ATB_SAVE_TENSOR`, `ACLTRANSFORMER_SAVE_TENSOR`: `1` dumps.
- `ATB_SAVE_TENSOR_RANGE`: `a,b[,c,d...]` are executions a to b and c to d, both ends included. All where it is not set.
- `ATB_SAVE_TENSOR_RUNNER`, `ACLTRANSFORMER_SAVE_TENSOR_RUNNER`: how the names of wanted operations or kernels begin,
  with commas between them; what is inside these is wanted, too. All where it is not set.
- `AIT_CMP_TASK_PID`: P means only the files listed in `/tmp/P/ait_compare_acl_map.txt`, if that exists.
- `AIT_CMP_TASK_ID`: names the folder of a task in generation A.
- `ATB_OUTPUT_DIR`, `ASDOPS_LOG_TO_FILE_DIR`, `ACLTRANSFORMER_HOME_PATH`: where to. The first that is set tells the
  generation of folders: C, B or A.
- `STANDIN_GENERATION`: tells it instead: A, B, C or D.
"""

import csv
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import tensor_file

GENERATIONS = {
    "C": ("ATB_OUTPUT_DIR", "."),
    "D": ("ATB_OUTPUT_DIR", "."),
    "B": ("ASDOPS_LOG_TO_FILE_DIR", "atb_temp"),
    "A": ("ACLTRANSFORMER_HOME_PATH", "."),
}
"""The variable that names the output folder of each generation, and the folder where it is not set."""

_STATISTIC = "statistic.csv"
_COLUMNS = (
    *("Device and PID", "Execution Count", "Op Name", "Op Type", "Op Id", "Input/Output", "Index"),
    *("Dtype", "Format", "Shape", "Max", "Min", "Mean", "Norm", "Tensor Path"),
)
_DTYPE_NAMES = {torch.float32: "float", torch.bfloat16: "bf16"}


@dataclass(frozen=True, slots=True)
class Dump:
    """Dump of one execution of a root operation: its folder, and the tensors that it takes."""

    folder: Path
    generation: str
    device: int
    execution: int
    runners: tuple[str, ...]
    wanted: frozenset[str] | None

    @staticmethod
    def of_execution(execution: int, device: int) -> "Dump | None":
        """Read the environment for the `execution`-th execution (from 0); None where nothing is to be dumped."""
        if "1" not in (os.environ.get("ATB_SAVE_TENSOR"), os.environ.get("ACLTRANSFORMER_SAVE_TENSOR")):
            return None
        if not _in_range(execution, os.environ.get("ATB_SAVE_TENSOR_RANGE", "")):
            return None
        runners = os.environ.get("ATB_SAVE_TENSOR_RUNNER") or os.environ.get("ACLTRANSFORMER_SAVE_TENSOR_RUNNER", "")
        generation = os.environ.get("STANDIN_GENERATION") or _generation()
        return Dump(
            folder=_folder(generation, execution, device),
            generation=generation,
            device=device,
            execution=execution,
            runners=tuple(name.strip().lower() for name in runners.split(",") if name.strip()),
            wanted=_wanted_files(),
        )

    def save(self, nodes: tuple[str, ...], moment: str, tensors: tuple[Tensor, ...], *, is_kernel: bool) -> None:
        """Write the tensors of a node, given by its path of `{id}_{name}`, `moment` "before" or "after" it runs."""
        if self.runners and not any(node.partition("_")[2].lower().startswith(self.runners) for node in nodes):
            return
        kind = "intensor" if moment == "before" else "outtensor"
        if is_kernel and self.generation in "AB":
            kind = kind.replace("tensor", "Tensor")  # the early libraries tell kernels from operations by that letter
        for index, tensor in enumerate(tensors):
            path = "/".join((*nodes, moment, f"{kind}{index}.bin"))
            if self.wanted is None or path.lower() in self.wanted:
                tensor_file.write(self.folder / path, tensor)
                if self.generation == "D":
                    self._note(nodes, moment, index, tensor, self.folder / path)

    def _note(self, nodes: tuple[str, ...], moment: str, index: int, tensor: Tensor, path: Path) -> None:
        """Add the file to the execution's table, which msprobe reads."""
        numbers, names = zip(*(node.split("_", 1) for node in nodes), strict=True)
        row = (
            self.folder.parent.name,
            self.execution,
            "/".join(names),
            names[-1],
            "_".join(numbers),
            "input" if moment == "before" else "output",
            index,
            _DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch.")),
            "nd",
            "x".join(map(str, tensor.shape)),
            *["N/A"] * 4,
            path.absolute(),
        )
        table = self.folder / _STATISTIC
        is_new = not table.exists()
        with table.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if is_new:
                writer.writerow(_COLUMNS)
            writer.writerow(row)


def _in_range(execution: int, bounds: str) -> bool:
    numbers = [int(number) for number in bounds.split(",") if number.strip()]
    return not numbers or any(a <= execution <= b for a, b in zip(numbers[::2], numbers[1::2], strict=True))


def _generation() -> str:
    return next((name for name, (variable, _) in GENERATIONS.items() if os.environ.get(variable)), "B")


def _folder(generation: str, execution: int, device: int) -> Path:
    variable, default = GENERATIONS[generation]
    out = Path(os.environ.get(variable) or default)
    process, thread, task = os.getpid(), threading.get_native_id(), os.environ.get("AIT_CMP_TASK_ID")
    if generation == "A":
        return out / "tensors" / (f"{process}/{task}" if task else f"thread_{thread}/{execution}")
    if generation == "B":
        return out / "tensors" / f"{process}_{thread}" / str(execution)
    top = "msit_dump/tensors" if generation == "C" else "atb_dump_data/data"
    return out / top / f"{device}_{process}" / str(execution)


def _wanted_files() -> frozenset[str] | None:
    """Return the files on the list, in lower case; None without a list. It may grow between two executions."""
    task = os.environ.get("AIT_CMP_TASK_PID")
    if not task:
        return None
    try:
        lines = Path(f"/tmp/{task}/ait_compare_acl_map.txt").read_text().splitlines()
    except FileNotFoundError:
        return None
    return frozenset(line.strip().lower() for line in lines)
