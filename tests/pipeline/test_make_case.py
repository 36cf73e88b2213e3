"""Cases show the number of their report, whatever it is measured beside, and say where there is none to make."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rich.console import Console

from aclcmp.labeling.layout import Layout, Partial
from aclcmp.orchestrator.case.folder import Case
from aclcmp.orchestrator.case.script import worst_row
from aclcmp.orchestrator.cli.app import run_cli
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.dumps.safetensors import write_safetensors
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.pipeline.make_case import Wish, make_case
from aclcmp.orchestrator.pipeline.stored_reports import read_stored_report
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record, save_record
from aclcmp.orchestrator.terminal.screen import Screen
from tests.recorded import write_run

Values = npt.NDArray[np.float32]
Labels = list[tuple[str, str, Values]]
SCREEN = Screen(Console(quiet=True, force_terminal=True))


def compared(folder: Path, *ranks: Labels) -> tuple[RunDir, Report]:
    write_run(folder, ranks, run_id="20260101-000000")
    run_cli(["compare", str(folder)])
    return read_stored_report(folder)


def drawn(*shape: int) -> Values:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def shown(case: Case) -> float:
    return worst_row(case.tensors["actual.output"].values, case.tensors["golden.output"].values, case.sizes)


def both(*labels: tuple[str, Values, Values]) -> Labels:
    return [each for name, golden, actual in labels for each in (("pta", name, golden), ("acl", name, actual))]


def test_a_token_is_measured_beside_its_largest_norm(tmp_path: Path) -> None:
    """Row 0 had a norm of a thousand in the layer before; the one that the report calls the worst is another."""
    before, after = drawn(64, 16), drawn(64, 16)
    before[0] *= 1000.0
    wrong = after.copy()
    wrong[0] *= 1.5
    wrong[7] *= 1.02
    run, report = compared(tmp_path / "run", both(("layers.0", before, before), ("layers.1", after, wrong)))
    case = make_case(run, report, Wish("layers.1", rows=2), SCREEN)
    assert case.tokens[0] == "row 7" and shown(replace_rows(case, 1)) == pytest.approx(case.reported, rel=1e-4)
    assert case.reported < 0.1


def replace_rows(case: Case, count: int) -> Case:
    """A case of its first rows alone."""
    tensors = {
        name: replace(each, bits=each.bits[:count]) if name.endswith("output") else each
        for name, each in case.tensors.items()
    }
    return replace(case, tensors=tensors, sizes=list(case.sizes)[:count])


def test_all_rows_are_those_that_there_are(tmp_path: Path) -> None:
    golden = drawn(5, 8)
    run, report = compared(tmp_path / "run", both(("a", golden, golden * np.float32(1.1))))
    case = make_case(run, report, Wish("a", rows=100), SCREEN)
    assert sorted(case.tokens) == [f"row {row}" for row in range(5)]
    assert case.errors()["actual"] == pytest.approx(0.1, rel=1e-5)
    vector = compared(tmp_path / "vector", both(("a", golden[0], golden[0] * np.float32(1.1))))
    case = make_case(*vector, Wish("a"), SCREEN)
    assert shown(case) == pytest.approx(case.reported) and case.tensors["golden.output"].bits.shape == (1, 8)


def test_a_slice_is_computed_from_slices(tmp_path: Path) -> None:
    """Each rank's slice of an elementwise label is computed from the same slice of its inputs."""
    gate, up = drawn(6, 8), drawn(6, 8) * np.float32(2.0)
    silu = (gate / (1 + np.exp(-gate.astype(np.float64))) * up).astype(np.float32)
    ranks = []
    for part in (slice(0, 4), slice(4, 8)):
        wrong = silu[:, part] * np.float32(1.0 + 0.3 * (part.start == 4))
        ranks.append([("acl", name, each) for name, each in (("g", gate[:, part]), ("u", up[:, part]), ("h", wrong))])
    ranks[0] = [("pta", "g", gate), ("pta", "u", up), ("pta", "h", silu), *ranks[0]]
    run, report = compared(tmp_path / "run", *ranks)
    case = make_case(run, report, Wish("h"), SCREEN)
    assert case.rank == 1 and case.verdict().startswith("confirms own: golden agrees"), case.verdict()
    assert case.tensors["golden.input.0"].bits.shape == (1, 4)
    other = make_case(run, report, Wish("h", rank=0), SCREEN)
    assert other.verdict().startswith("does not confirm own: actual agrees")


def test_what_golden_does_not_prove_is_no_input(tmp_path: Path) -> None:
    x, y = drawn(6, 8), drawn(6, 8) ** 3
    run, report = compared(tmp_path / "run", both(("x", x, x), ("y", y + x[::-1], y)))
    case = make_case(run, report, Wish("y"), SCREEN)
    assert case.formula is None and case.verdict().startswith("cannot confirm own: its inputs are not known")
    assert "Its input is not known" in case.notes[0]


def test_an_injected_run_makes_no_case(tmp_path: Path) -> None:
    x = drawn(6, 8)
    run, report = compared(tmp_path / "run", both(("x", x, -x)))
    assert report.run is not None
    injected = replace(report, run=report.run.model_copy(update={"golden": "plain", "inject": ("x",)}))
    with pytest.raises(UsageError, match="--inject, behind which inputs are golden's; give plain"):
        make_case(run, injected, Wish("x"), SCREEN)


def test_a_quantised_weight_is_not_what_golden_multiplies_by(tmp_path: Path) -> None:
    """Its numbers are not the weight: nothing is said of golden, and equal inputs tell all the same."""
    x, weight, scale = drawn(6, 8), np.arange(64, dtype=np.int8).reshape(8, 8), np.full((8, 1), 0.1, np.float32)
    golden = x @ (weight * scale).T
    run, report = compared(tmp_path / "run", both(("up.input", x, x), ("up", golden, golden * np.float32(1.5))))
    tensors: dict[str, tuple[str, npt.NDArray[np.generic]]] = {
        "up.weight": ("int8", weight),
        "up.weight_scale": ("float32", scale),
    }
    write_safetensors(tmp_path / "model.safetensors", tensors, {})
    case = make_case(run, report, Wish("up", model=tmp_path), SCREEN)
    assert case.verdict().startswith("confirms own: from the same input actual differs (5.0e-01)")
    assert "Its weight is quantised in the checkpoint, of which no case is computed again." in case.notes
    assert not any(name.startswith("parameter") for name in case.tensors)


def test_a_label_beside_those_on_golden_values_has_its_own_input(tmp_path: Path) -> None:
    """Of a run with `--local` only: what it did not compute from golden's values is as the run before has it."""
    x = drawn(6, 8)
    golden, _ = compared(tmp_path / "golden", both(("a", x, x * 2), ("b", x, x * 2)))
    local = write_run(tmp_path / "local", [[("acl", "a", x * 2)]], run_id="20260101-000001")
    save_record(load_record(local.record).model_copy(update={"golden": str(golden.root)}), local.record)
    run_cli(["compare", str(local.root)])
    run, report = read_stored_report(local.root)
    assert (
        "The actual side was computed from golden's input (`--local`)."
        in make_case(run, report, Wish("a"), SCREEN).notes
    )
    case = make_case(run, report, Wish("b"), SCREEN)
    assert case.verdict().startswith("does not confirm own: actual agrees") and "with the input" in case.verdict()
    assert not any("--local" in note for note in case.notes)


def test_a_sum_of_ranks_is_that_of_each(tmp_path: Path) -> None:
    x = drawn(6, 8)
    ranks: list[Labels] = [[("pta", "x", x), ("acl", "x", x * 2)], [("acl", "x", x)]]
    write_run(tmp_path, ranks, Layout((Partial(),)), run_id="20260101-000000")
    run_cli(["compare", str(tmp_path)])
    cases = [make_case(*read_stored_report(tmp_path), Wish("x", rank=rank), SCREEN) for rank in range(2)]
    assert [case.errors()["actual"] for case in cases] == pytest.approx([2.0, 2.0])
