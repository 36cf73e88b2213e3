"""Damage files that aclcmp reads, 20,000 times and more, and print how reading each kind of them ended.

    python benchmarks/damage_inputs.py [--inputs 21000] [--seed 0] [--only NAME]

Bits are flipped, files cut off, sectors zeroed, blocks moved, lost and put in. Exits with 1 when reading hangs, takes a
gigabyte, raises another error than AclcmpError (exit code 70 of the command), kills the process, says nothing, or reads
other content although the format has a checksum. Reports without a seal are opened in a fork of this process, with the
same limits as in a fresh process, which would take 0.2 s for each.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aclcmp.labeling.errors import AclcmpError, ShardFormatError
from aclcmp.labeling.shard.trial import try_whole
from aclcmp.orchestrator.report.h5 import sealed_file
from benchmarks.damaged import KINDS, Answer, Kind, damage

BATCH = 250
HANG = 10.0
TRIAL = 2.0
"""Seconds that a trial of a small report gets here, where the command gives it ten."""
MEMORY = 1 << 30


class Ending(str, Enum):
    """How reading a damaged file ended."""

    REFUSED = "refused in words"
    RIGHT = "read right"
    OTHER = "read, differs"
    """The format has no checksum of what was damaged."""
    UNNOTICED = "differs unnoticed"
    """Though the format has a checksum."""
    SILENT = "empty words"
    HANG = "hang"
    MEMORY = "memory"
    BUG = "exit 70"
    DIED = "died"


BAD = (Ending.UNNOTICED, Ending.SILENT, Ending.HANG, Ending.MEMORY, Ending.BUG, Ending.DIED)


@dataclass(slots=True)
class Tally:
    """Counts of how reading the inputs of one kind ended, with the first example of each bad ending."""

    counts: Counter[Ending] = field(default_factory=Counter)
    examples: dict[Ending, str] = field(default_factory=dict)
    slowest: float = 0.0
    seconds: float = 0.0

    @property
    def bad(self) -> int:
        """Number of inputs that ended badly."""
        return sum(self.counts[ending] for ending in BAD)


def campaign(kind: Kind, inputs: int, seed: int, folder: Path) -> Tally:
    """Damage one kind of file so many times and read each; the same seed damages in the same way."""
    tally = Tally()
    begun = time.monotonic()
    folder.mkdir()
    path = kind.make(folder)
    whole, right = path.read_bytes(), kind.read(folder, path)
    number = 0
    while number < inputs:
        for line in _batch(kind, folder, path, whole, right, range(number, min(number + BATCH, inputs)), seed):
            name, took, why = line
            tally.counts[name] += 1
            tally.slowest = max(tally.slowest, took)
            if name in BAD:
                tally.examples.setdefault(name, f"input {number} of seed {seed}: {why}")
            number += 1
    tally.seconds = time.monotonic() - begun
    return tally


def _batch(
    kind: Kind, folder: Path, path: Path, whole: bytes, right: Answer, numbers: range, seed: int
) -> Iterator[tuple[Ending, float, str]]:
    """Read inputs in a child process and yield their endings; one that hangs or kills the child is the last."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            with os.fdopen(writer, "w") as out:
                _child(kind, folder, path, whole, right, numbers, seed, out)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    done = 0
    with os.fdopen(reader, "rb", 0) as lines:
        rest = b""
        while done < len(numbers):
            ready = select.select([lines], [], [], HANG)[0]
            piece = lines.read(1 << 16) if ready else b""
            if not piece:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)[1]
                yield (Ending.DIED, 0.0, f"wait status {ended}") if ready else (Ending.HANG, HANG, "")
                return
            *whole_lines, rest = (rest + piece).split(b"\n")
            for line in whole_lines:
                name, took, why = line.decode().split("\t", 2)
                done += 1
                yield Ending[name], float(took), why
    os.waitpid(child, 0)


def _child(
    kind: Kind, folder: Path, path: Path, whole: bytes, right: Answer, numbers: range, seed: int, out: TextIO
) -> None:
    most = _address_space() + 4 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sealed_file.check_opens = _try_in_fork
    for number in numbers:
        path.write_bytes(damage(whole, random.Random(f"{seed} {kind.name} {number}")))
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        ending, why = _ending(kind, folder, path, right)
        if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 > MEMORY:
            ending = Ending.MEMORY
        why = " ".join(why.split())[:300].encode("ascii", "backslashreplace").decode()
        out.write(f"{ending.name}\t{time.monotonic() - begun:.3f}\t{why}\n")
        out.flush()
    path.write_bytes(whole)


def _address_space() -> int:
    """Return the size of this process's address space in bytes; most of it is libraries."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _ending(kind: Kind, folder: Path, path: Path, right: Answer) -> tuple[Ending, str]:
    try:
        found = kind.read(folder, path)
    except AclcmpError as error:
        return _words(str(error))
    except Exception:
        return Ending.BUG, traceback.format_exc()[-600:]
    if found.messages != right.messages:
        return _words(found.messages or "there are fewer messages than for the whole file")
    if found.content == right.content:
        return Ending.RIGHT, ""
    return (Ending.UNNOTICED if kind.checked else Ending.OTHER), ""


def _words(text: str) -> tuple[Ending, str]:
    empty = not text.strip() or any(part.rstrip().endswith((": None", ":")) for part in text.split("; "))
    return (Ending.SILENT if empty else Ending.REFUSED), text


def _try_in_fork(path: Path) -> None:
    """Do what `check_opens` does, in a fork of this process."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            status = try_whole(str(path), _address_space() + MEMORY)
        finally:
            os._exit(status)
    end = time.monotonic() + TRIAL
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise ShardFormatError(f"{path} did not open within {TRIAL:.0f} s: it is damaged")
        time.sleep(0.001)
    if ended[1]:
        raise ShardFormatError(f"{path} cannot be read")


def main() -> int:
    """Print the table; return 1 if anything ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=21_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one kind of file")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if options.only in (None, kind.name)]
    shown = [ending for ending in Ending if ending is not Ending.SILENT]
    print(f"{'what':20} {'inputs':>7} " + " ".join(f"{ending.value:>17}" for ending in shown) + "  slowest (s)")
    bad = 0
    with TemporaryDirectory() as above:
        gc.freeze()  # else children copy pages just to count references
        for number, kind in enumerate(kinds):
            tally = campaign(kind, -(-options.inputs // len(kinds)), options.seed, Path(above) / f"{number}")
            counts = " ".join(f"{tally.counts[ending]:17}" for ending in shown)
            print(f"{kind.name:20} {tally.counts.total():7} {counts} {tally.slowest:12.2f}", flush=True)
            for ending, example in tally.examples.items():
                print(f"    {ending.value}: {example}")
            bad += tally.bad
            shutil.rmtree(Path(above) / f"{number}")
    print(f"{bad} inputs ended badly")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
