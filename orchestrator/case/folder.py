"""The folder of a case: its tensors, its script and its README."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aclcmp.orchestrator.case import script
from aclcmp.orchestrator.case.computation import Formula
from aclcmp.orchestrator.case.label_rows import StoredTensor
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.dumps.safetensors import write_safetensors
from aclcmp.orchestrator.errors import UsageError

_WORDS = {
    "actual": "actual, from golden",
    "input": "actual's input, from golden's",
    "golden": "golden, from its recomputation",
    "own input": "actual, from the recomputation of its input",
}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One module on a few tokens."""

    label: str
    rank: int
    said: Sequence[str]
    """What the report says, in lines."""
    tokens: Sequence[str]
    """Names of the rows of the outputs."""
    sizes: Sequence[float]
    """The norm beside which the report measures the error of each row."""
    reported: float
    """The error of the worst row, as the report says."""
    agrees: float
    """Relative error up to which two results agree."""
    formula: Formula | None
    tensors: Mapping[str, StoredTensor]
    """golden.output, actual.output, golden.input.0, ..., parameter.weight, ..."""
    rows: Sequence[int]
    """The rows of the inputs whose outputs there are."""
    notes: Sequence[str]
    """Sentences on the inputs and parameters."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(each.bits.nbytes for each in self.tensors.values())

    def errors(self) -> dict[str, float]:
        """Return what the script measures."""
        values = {name: each.values for name, each in self.tensors.items()}
        return script.measure(self.formula or script.compute, values, list(self.rows))

    def verdict(self) -> str:
        """Say whether the case confirms that the error is the module's own."""
        return script.verdict(self.errors(), self.agrees)

    def lines(self) -> list[str]:
        """Say what it is of and what it shows."""
        return [f"{self.label}, rank {self.rank}: {'; '.join(self.tokens)}", *self.notes, self.verdict()]


def folder_name(label: str) -> str:
    """Return the name of a label's folder, of letters, digits, dots, dashes and underscores."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip(".-")[:120]
    return f"{safe or 'label'}-case"


def write_case(case: Case, folder: Path, most: int) -> None:
    """Write a folder. Raises UsageError where it exists, or would hold more than `most` bytes."""
    if case.nbytes > most:
        largest = max(case.tensors, key=lambda name: case.tensors[name].bits.nbytes)
        raise UsageError(
            f"the case of {case.label} would hold {case.nbytes / 2**20:,.1f} MiB, most of it {largest}; "
            f"--max-size {-(-case.nbytes // 2**20)} allows that"
        )
    if folder.exists():
        raise UsageError(f"{folder} exists; choose another folder with --output, or remove it")
    part = folder.with_name(f"{folder.name}.part")
    try:
        part.mkdir(parents=True)
        try:
            _write_files(case, part)
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; choose a folder with --output") from None


def _write_files(case: Case, folder: Path) -> None:
    facts = {
        "label": visible(case.label),
        "rank": case.rank,
        "tokens": [visible(each) for each in case.tokens],
        "sizes": list(case.sizes),
        "reported": case.reported,
        "agrees": case.agrees,
        "rows": list(case.rows),
        "dtypes": {name: each.dtype for name, each in case.tensors.items()},
        "words": _WORDS,
    }
    tensors = {name: (each.dtype, each.bits) for name, each in case.tensors.items()}
    write_safetensors(folder / "case.safetensors", tensors, {"case": json.dumps(facts)})
    (folder / "case.py").write_text(script_text(case.formula), encoding="utf-8")
    (folder / "README.md").write_text(_readme(case), encoding="utf-8")


def script_text(formula: Formula | None) -> str:
    """Return the script with a formula as its `compute`."""
    text = inspect.getsource(script)
    if formula is None:
        return text
    source = inspect.getsource(formula).replace(f"def {formula.__name__}(", "def compute(", 1)
    text = text.replace(inspect.getsource(script.compute), source)
    return text.replace("import json\n", "import json\nimport math\n", 1) if "math." in source else text


def _readme(case: Case) -> str:
    tensors = (f"| {as_code(name)} | {each.dtype} | {list(each.bits.shape)} |" for name, each in case.tensors.items())
    lines = [
        f"# {as_code(case.label)}, rank {case.rank}",
        "",
        "What the report said:",
        "",
        *(f"- {as_code(line)}" for line in case.said),
        "",
        "Tokens:",
        "",
        *(f"- {as_code(each)}" for each in case.tokens),
        "",
        *(f"{note}\n" for note in case.notes),
        f"What this case says: {case.verdict()}.",
        "",
        "```",
        "python case.py                          # needs torch, nothing else",
        "python case.py my_kernel.py:function    # function(*inputs, **parameters), held against golden",
        "```",
        "",
        "| in case.safetensors | type | shape |",
        "|---|---|---|",
        *tensors,
    ]
    return "\n".join(lines) + "\n"


def as_code(text: str) -> str:
    """Return text as code in Markdown: nothing in it is markup."""
    shown = visible(text)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    ticks, space = "`" * (longest + 1), " " * bool(longest)
    return f"{ticks}{space}{shown}{space}{ticks}"
