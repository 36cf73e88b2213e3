"""Checks of what `aclcmp check` and `aclcmp golden` are given, before anything is started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from aclcmp.labeling.engines.quantised_config import read_schemes
from aclcmp.labeling.engines.vllm_options import sets_compilation
from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.user_file import read_user_file
from aclcmp.orchestrator.run.directory import RunDir

_MOST_BYTES = 16 << 20
_INSTALL = {"vllm": "pip install vllm"}
MODES = {
    "eager": ("--enforce-eager",),
    "compiled": ("--compilation-config", '{"mode": 3, "backend": "inductor", "cudagraph_mode": "NONE"}'),
    "graph": ("--compilation-config", '{"mode": 3}'),
}
"""Mode -> options of vLLM; in the last one it captures device graphs where the platform has them."""


@dataclass(frozen=True, slots=True)
class GoldenModel:
    """The model folder from which golden is computed, and what is measured of a quantised one."""

    folder: Path
    price: bool = False
    """Whether each of its layers is measured."""
    original: Path | None = None
    """The folder of the model before it was quantised."""

    @property
    def options(self) -> list[str]:
        """The words of these options on a command line."""
        return ["--price"] * self.price + (["--original", str(self.original)] if self.original is not None else [])

    def check(self) -> None:
        """Raise UsageError for what is no model folder, or is quantised in a way that is not known."""
        config = check_model(self.folder)
        try:
            schemes = read_schemes(config)
        except AclcmpError as error:
            raise UsageError(f"{self.folder}: {error}") from None
        if self.original is not None:
            check_model(self.original)
        if self.options and not schemes:
            raise UsageError(f"{self.options[0]} is for quantised models, and {self.folder} is none; leave it out")
        if self.price and self.original is None and not any(scheme.inputs for scheme in schemes):
            raise UsageError(f"--price: of {schemes[0].name} only weights are quantised; give --original DIR")


def check_model(model: Path) -> dict[str, object]:
    """Return the configuration of a model folder. Raises UsageError for what is none."""
    path = model / "config.json"
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MOST_BYTES))
    except FileNotFoundError:
        raise UsageError(f"{model} is no model folder: it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path} is no configuration of a model")
    return config


def check_ranks(model: Path, ranks: int) -> None:
    """Raise UsageError where the heads of a model cannot be split over so many ranks."""
    heads = check_model(model).get("num_attention_heads")
    if isinstance(heads, int) and heads > 0 and heads % ranks:
        fit = ", ".join(str(number) for number in range(1, heads + 1) if heads % number == 0)
        raise UsageError(f"--ranks {ranks}: the {heads} attention heads of {model.name} can be split over {fit} ranks")


def mode_options(modes: str | None, options: list[str], *, as_json: bool) -> dict[str, tuple[str, ...]]:
    """Return the modes of `--modes` with the engine options of each. Raises UsageError for what is no mode."""
    if modes is None:
        return {"": ()}
    names = list(dict.fromkeys(name.strip() for name in modes.split(",")))
    if unknown := [name for name in names if name not in MODES]:
        raise UsageError(f"--modes {modes}: {unknown[0]!r} is none of {', '.join(MODES)}")
    if own := next(filter(sets_compilation, options), None):
        raise UsageError(f"--modes sets what {own} does; leave one of them out")
    if as_json and len(names) > 1:
        raise UsageError("--json prints one report: read RUN/MODE/report.json of each mode")
    return {name: MODES[name] for name in names}


def external_run(options: list[str], of_a_start: Mapping[str, object]) -> Path:
    """Return the run that `--engine external` compares. Raises UsageError where none or more than that is given.

    `of_a_start` are the options for engines that are started, by name; None where one was not given.
    """
    if len(options) != 1:
        raise UsageError("--engine external needs one run that exists: aclcmp check MODEL --engine external RUN")
    if given := [name for name, value in of_a_start.items() if value is not None]:
        raise UsageError(f"--engine external starts nothing: leave out {' and '.join(given)}")
    run = Path(options[0])
    if run.exists() and not RunDir(run, "").record.exists():
        raise UsageError(
            f"{run} is no run of aclcmp (no run.json); to compare a dump with another: aclcmp compare GOLDEN DUMP"
        )
    return run


def check_prompts(prompts: Path | None) -> Path:
    """Return a file of prompts, one a line. Raises UsageError where there are none."""
    if prompts is None:
        raise UsageError("--prompts FILE is needed: a text with one prompt a line")
    try:
        content = read_user_file(prompts, _MOST_BYTES, "text of prompts", "a text with one prompt a line")
    except UsageError as error:
        raise UsageError(f"--prompts {error}") from None
    try:
        lines = [line for line in content.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UsageError(f"--prompts {prompts} is no text in UTF-8; give one prompt a line") from None
    if b"\0" in content:
        raise UsageError(f"--prompts {prompts} is no text of prompts")
    if not lines:
        raise UsageError(f"--prompts {prompts} is empty; give one prompt a line")
    return prompts


def check_engine(engine: str) -> None:
    """Raise UsageError where an engine is not installed in this Python."""
    if find_spec(engine) is None:
        raise UsageError(f"--engine {engine} is not installed here: {_INSTALL[engine]}")
