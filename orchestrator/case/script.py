"""One module on a few tokens: what golden and the actual side returned, and what its inputs and weights give.

python case.py                          computes the module in float64 and says what differs
python case.py my_kernel.py:function    also holds function(*inputs, **parameters) against golden
"""

import json
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def compute(*inputs: Any, **parameters: Any) -> Any:
    """PUT THE CALL OF YOUR MODULE HERE. It returns [tokens, features]; inputs and parameters are in float64."""
    raise NotImplementedError


def relative_l2(value: Any, golden: Any) -> float:
    """Return the relative L2 error of all values."""
    difference, size = float(((value - golden) ** 2).sum()), float((golden**2).sum())
    return (difference / size) ** 0.5 if size else (0.0 if difference == 0.0 else float("inf"))


def worst_row(value: Any, golden: Any, sizes: Sequence[float]) -> float:
    """Return the largest error of a row, each beside the size by which the report measures it."""
    rows = ((value - golden) ** 2).sum(-1).tolist()
    return max(difference**0.5 / size if size else float("inf") for difference, size in zip(rows, sizes, strict=True))


def measure(compute: Callable[..., Any], tensors: Mapping[str, Any], rows: Sequence[int]) -> dict[str, float]:
    """Return the errors of a case: of actual, of its inputs, and of both sides from what their own inputs give.

    `rows` are those of the inputs whose outputs the case has.
    """
    golden, actual = tensors["golden.output"], tensors["actual.output"]
    parameters = {name[10:]: each for name, each in tensors.items() if name.startswith("parameter.")}
    inputs, own_inputs = (
        [each for name, each in tensors.items() if name.startswith(f"{side}.input.")] for side in ("golden", "actual")
    )
    found = {"actual": relative_l2(actual, golden)}
    if inputs and own_inputs:
        found["input"] = max(relative_l2(own, each) for own, each in zip(own_inputs, inputs, strict=True))
    try:
        if inputs or parameters:
            found["golden"] = relative_l2(golden, compute(*inputs, **parameters)[rows])
        if own_inputs or (parameters and not inputs):
            found["own input"] = relative_l2(actual, compute(*own_inputs, **parameters)[rows])
    except NotImplementedError:
        pass
    return found


def verdict(errors: Mapping[str, float], agrees: float) -> str:
    """Say whether the case confirms that the error is the module's own; `agrees` is the error of results that agree."""
    actual, golden, own, of_input = errors["actual"], errors.get("golden"), errors.get("own input"), errors.get("input")
    if golden is None and of_input is None:
        return "cannot confirm own: its inputs are not known on both sides, and it was not computed again"
    if golden is None and of_input is not None:
        if not of_input <= agrees:
            return f"cannot confirm own: the inputs differ ({of_input:.1e}), and it was not computed again"
        if actual <= agrees:
            return f"does not confirm own: from the same input golden and actual agree ({actual:.1e})"
        return f"confirms own: from the same input actual differs ({actual:.1e}); which is right was not computed"
    if golden is not None and not golden <= agrees:
        return f"does not confirm own: golden differs from the recomputation ({golden:.1e}): are these its weights?"
    if own is None:
        return f"cannot confirm own: golden agrees with the recomputation ({golden:.1e}); actual's input is not known"
    if own <= agrees:
        came_in = f"; the error came in with the input ({of_input:.1e})" if of_input and of_input > agrees else ""
        return f"does not confirm own: actual agrees with what its own input gives ({own:.1e}){came_in}"
    return f"confirms own: golden agrees with the recomputation ({golden:.1e}), actual differs ({own:.1e})"


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is known of the case, and its tensors, from a file in the format of safetensors."""
    import torch

    raw = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    facts = json.loads(header.pop("__metadata__")["case"])
    tensors = {}
    for name, each in header.items():
        first, stop = (begin + offset for offset in each["data_offsets"])
        dtype = getattr(torch, facts["dtypes"][name])
        tensors[name] = torch.frombuffer(raw[first:stop], dtype=dtype).reshape(each["shape"])
    return facts, tensors


def main(arguments: Sequence[str]) -> None:
    """Print what the case shows."""
    facts, tensors = load(Path(__file__).resolve().parent / "case.safetensors")
    exact = {name: each.double() for name, each in tensors.items()}
    golden, actual = exact["golden.output"], exact["actual.output"]
    print(f"{facts['label']}, rank {facts['rank']}: {'; '.join(facts['tokens'])}")
    worst = worst_row(actual, golden, facts["sizes"])
    print(f"worst row {worst:.1e}; the report says {facts['reported']:.1e}")
    errors = measure(compute, exact, facts["rows"])
    for name, each in errors.items():
        print(f"  {facts['words'][name]:48} {each:.1e}" if each else f"  {facts['words'][name]:48} 0")
    print(verdict(errors, facts["agrees"]))
    inputs = [each for name, each in tensors.items() if name.startswith("golden.input.")]
    parameters = {name[10:]: each for name, each in tensors.items() if name.startswith("parameter.")}
    for argument in arguments:
        file, _, function = argument.rpartition(":")
        value = runpy.run_path(file)[function](*inputs, **parameters)[facts["rows"]].cpu().double()
        print(f"{argument}, of golden's input: {relative_l2(value, golden):.1e} from golden")


if __name__ == "__main__":
    main(sys.argv[1:])
