"""What a case's script says of the errors that it measures."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aclcmp.orchestrator.case.script import measure, relative_l2, verdict, worst_row

NAN = float("nan")


def array(values: Any) -> npt.NDArray[np.float64]:
    return np.array(values, np.float64)


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ({"actual": 0.1, "golden": 1e-7, "own input": 0.1, "input": 0.0}, "confirms own: golden agrees"),
        ({"actual": 0.1, "golden": 1e-7, "own input": 1e-7, "input": 0.1}, "does not confirm own: actual agrees"),
        ({"actual": 0.1, "golden": 0.2, "own input": 0.1, "input": 0.0}, "does not confirm own: golden differs"),
        ({"actual": 0.1, "golden": 1e-7}, "cannot confirm own: golden agrees"),
        ({"actual": 0.1}, "cannot confirm own: its inputs"),
        ({"actual": 0.1, "input": 0.1}, "cannot confirm own: the inputs differ"),
        ({"actual": 0.1, "input": 0.0}, "confirms own: from the same input"),
        ({"actual": 1e-7, "input": 0.0}, "does not confirm own: from the same input"),
        ({"actual": NAN, "golden": 1e-7, "own input": NAN, "input": 0.0}, "confirms own: golden agrees"),
        ({"actual": 0.1, "golden": NAN, "own input": 0.1, "input": 0.0}, "does not confirm own: golden differs"),
        ({"actual": 0.1, "input": NAN}, "cannot confirm own: the inputs differ"),
    ],
)
def test_what_errors_mean(errors: dict[str, float], words: str) -> None:
    assert verdict(errors, 1e-5).startswith(words)


def test_the_inputs_difference_is_told_where_the_error_came_in() -> None:
    errors = {"actual": 0.1, "golden": 0.0, "own input": 0.0, "input": 0.2}
    assert verdict(errors, 1e-5).endswith("; the error came in with the input (2.0e-01)")
    assert "came in" not in verdict(errors | {"input": 0.0}, 1e-5)


def test_errors_of_zeros() -> None:
    assert relative_l2(array([0.0]), array([0.0])) == 0.0
    assert relative_l2(array([1.0]), array([0.0])) == float("inf")
    assert worst_row(array([[3.0, 4.0], [1.0, 0.0]]), array([[0.0, 0.0], [0.0, 0.0]]), [10.0, 0.5]) == 2.0


def test_a_module_is_measured_from_either_sides_input() -> None:
    tensors = {
        "golden.output": array([[2.0]]),
        "actual.output": array([[6.0]]),
        "golden.input.0": array([[9.0], [1.0]]),
        "actual.input.0": array([[9.0], [3.0]]),
        "parameter.weight": array([2.0]),
    }
    errors = measure(lambda x, weight: x * weight, tensors, [1])
    assert errors == {"actual": 2.0, "input": pytest.approx(2 / 82**0.5), "golden": 0.0, "own input": 0.0}
