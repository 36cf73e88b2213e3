"""The commands on serving engines, as the command line has them."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.errors import AclcmpError
from aclcmp.orchestrator.cli.options import typer_option
from aclcmp.orchestrator.cli.reports import FailOnOption, JsonOption, PolicyOption
from aclcmp.orchestrator.core.job import Device, RunOptions
from aclcmp.orchestrator.errors import ExitCode, UsageError


class Engine(str, Enum):
    """Engines that `aclcmp check` starts; `external` starts none."""

    VLLM = "vllm"
    EXTERNAL = "external"


ModelOption = Annotated[Path, typer.Option("--model", metavar="MODEL", help="Folder of the model, as of transformers.")]


PriceOption = Annotated[
    bool,
    typer.Option("--price", help="Rank the layers of a quantised MODEL by what each costs the logits."),
]
OriginalOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the model before it was quantised: then weights are priced too."),
]


def golden(
    run_directory: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run directory in which an engine labelled named rows.")
    ],
    model: ModelOption,
    price: PriceOption = False,
    original: OriginalOption = None,
    policy: PolicyOption = None,
    fail_on: FailOnOption = None,
    no_compare: Annotated[bool, typer_option("no_compare")] = False,
    as_json: JsonOption = False,
) -> int:
    """Compute the golden side of an engine's run by transformers, over the very tokens that it computed; compare.

    Golden has the precision of the engine; where that is lower than float32, the reference in float32 measures how much
    of a difference is noise. Of a quantised MODEL both compute what its checkpoint says.
    """
    from aclcmp.orchestrator.cli.engine_commands import add_golden
    from aclcmp.orchestrator.engines.check_input import GoldenModel
    from aclcmp.orchestrator.pipeline.judging_options import read_judging_options

    terms = read_judging_options(policy, fail_on, None)
    of = GoldenModel(model, price, original)
    return int(add_golden(run_directory, of, terms, compare=not no_compare, as_json=as_json))


def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of the model, as of transformers.")],
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Text file with one prompt a line.")] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="The engine, which must be installed beside aclcmp; external: compare a RUN that exists."),
    ] = Engine.VLLM,
    modes: Annotated[
        str | None, typer.Option(metavar="MODE,...", help="Run the engine in each: eager, compiled, graph.")
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Tensor-parallel ranks of the engine.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens that are generated for each prompt.")] = 8,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="Run the engine again, its modules on golden's values: tells all that are wrong by themselves.",
        ),
    ] = False,
    price: PriceOption = False,
    original: OriginalOption = None,
    device: Annotated[Device, typer_option("device")] = Device.AUTO,
    address: Annotated[str | None, typer_option("address")] = None,
    output: Annotated[Path | None, typer_option("output")] = None,
    timeout: Annotated[float | None, typer_option("timeout")] = None,
    capture: Annotated[Capture, typer_option("capture")] = Capture.FULL,
    kv_cache: Annotated[bool, typer_option("kv_cache")] = False,
    policy: PolicyOption = None,
    fail_on: FailOnOption = None,
    as_json: JsonOption = False,
    engine_options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] [-- ENGINE OPTIONS]",
            help="Options of the engine: -- --dtype bfloat16; the run of an external one.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Run an engine over prompts, and transformers over the same tokens; name the first layer that differs, and where.

    Exit codes as of `aclcmp run`. With several modes each has its run, RUN/MODE, and the exit code is the worst.
    """
    from aclcmp.orchestrator.cli.commands import compare_again, run_job
    from aclcmp.orchestrator.cli.engine_commands import add_golden, check_modes
    from aclcmp.orchestrator.engines.check_input import (
        GoldenModel,
        check_engine,
        check_prompts,
        check_ranks,
        external_run,
        mode_options,
    )
    from aclcmp.orchestrator.pipeline.judging_options import read_judging_options
    from aclcmp.orchestrator.run.directory import RunDir

    options = engine_options or []
    terms = read_judging_options(policy, fail_on, None)
    of = GoldenModel(model, price, original)
    if engine is Engine.EXTERNAL:
        of_a_start: dict[str, object] = {"--prompts": prompts, "--modes": modes, "--address": address}
        kept = None if capture is Capture.FULL else capture
        of_a_start |= {"--output": output, "--timeout": timeout, "--capture": kept, "--local": local or None}
        of_a_start |= {"--kv-cache": kv_cache or None}
        run = external_run(options, of_a_start)
        return int(add_golden(run, of, terms, compare=True, as_json=as_json))
    of.check()
    check_ranks(model, ranks)
    texts = check_prompts(prompts)
    by_mode = mode_options(modes, options, as_json=as_json)
    if local and capture is not Capture.FULL:
        raise UsageError(
            f"--local needs golden's whole tensors, and --capture {capture.value} keeps none; leave one out"
        )
    if local and address is not None:
        raise UsageError("--local reads golden's values on this host; leave out --address")
    RunDir.check_vacant(output)
    check_engine(engine.value)
    if len(by_mode) > 1:
        words = [str(model), "--prompts", str(texts), "--engine", engine.value, "--ranks", str(ranks)]
        words += ["--max-tokens", str(max_tokens), "--device", device.value, *terms.options]
        words += [] if address is None else ["--address", address]
        words += [] if timeout is None else ["--timeout", str(timeout)]
        words += ["--capture", capture.value, *["--local"] * local, *["--kv-cache"] * kv_cache, *of.options]
        return int(check_modes(RunDir.create(output, with_ranks=False).root, words, by_mode, options))
    (of_mode,) = by_mode.values()
    root = RunDir.create(output, with_ranks=False).root
    words = [sys.executable, "-m", f"aclcmp.labeling.engines.{engine.value}_run", str(model.absolute())]
    words += [str(texts.absolute()), str(max_tokens), *options, *of_mode]
    job = RunOptions(
        exec=shlex.join(words),
        ranks=ranks,
        device=device,
        address=address,
        output=root,
        timeout=timeout,
        capture=capture,
        kv_cache=kv_cache,
        no_compare=True,
        as_json=as_json,
    )
    try:
        code = run_job(job, terms)
    except AclcmpError:
        with suppress(OSError):
            root.rmdir()  # the job was refused: the folder is empty
        raise
    if code is not ExitCode.MATCH:
        return int(code)
    if not local:
        return int(add_golden(root, of, terms, compare=True, as_json=as_json))
    add_golden(root, of, terms, compare=False, as_json=as_json)
    print("The engine again, on golden's values", file=sys.stderr if as_json else sys.stdout, flush=True)
    code = run_job(replace(job, local=root, output=RunDir.at(root).local), terms)
    if code is not ExitCode.MATCH:
        return int(code)
    return int(compare_again(root, None, terms, clean=False, as_json=as_json))
