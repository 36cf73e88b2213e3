"""Compare msprobe's dumps with `msprobe compare` and `aclcmp compare` in turns, and print the ratio of each round.

    python benchmarks/peers/bench_msprobe.py [--rounds 5] [--pairs 200] [--threads 1] [--environment FOLDER]

msprobe is installed from PyPI into an environment of its own, and dumps 2 ranks x 200 outputs of 4 MiB (float32, `.pt`)
of two runs of a model; in the second all weights are 0.1 % off, so that all tensors after the first drift. Both tools
compare the same folders, with the files in memory, and with one BLAS thread: msprobe is faster so, see --threads. It
takes 2 GB of disk for the environment and 3.4 GB for the dumps, all removed at the end. Bound: 8 times as fast as
msprobe. Exits with 1 when the two did not compare the same tensors.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS = 2
DRIFT = 1e-3
BOUND = 8.0
PACKAGES = ("mindstudio-probe==26.2.0", "torch==2.13.0")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Tensors = set[tuple[int, str]]
"""Rank and name of each tensor that was compared."""


def make_environment(folder: Path) -> None:
    """Install msprobe into a new virtual environment, unless it is there."""
    if not (folder / "bin" / "msprobe").exists():
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES)


def make_dump(environment: Path, folder: Path, pairs: int, drift: float) -> Path:
    """Run the model on both ranks under msprobe, and return the folder that holds them."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = Path(__file__).with_name("dump_activations.py")
    ranks = [
        subprocess.Popen(
            [environment / "bin" / "python", script, folder, str(pairs), str(drift)],
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    for rank in ranks:
        said, _ = rank.communicate()
        if rank.returncode:
            sys.exit(f"msprobe's dump failed:\n{said}")
    return folder / "step0"


def run(*command: str | Path, good: tuple[int, ...] = (0,), cwd: Path | None = None) -> float:
    """Run a command and return the seconds that it took; end this script when its exit code is not a `good` one."""
    begun = time.perf_counter()
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    took = time.perf_counter() - begun
    if done.returncode not in good:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return took


def tensors_of_msprobe(folder: Path) -> Tensors:
    """Return the tensors that have a cosine in msprobe's files, one for each rank."""
    found: Tensors = set()
    for rank in range(RANKS):
        (path,) = folder.glob(f"compare_result_rank{rank}_*.csv")
        with path.open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row["NPU Name"] == row["Bench Name"]]
        found |= {(rank, row["NPU Name"]) for row in rows if is_number(row["Cosine"])}
    return found


def tensors_of_aclcmp(folder: Path) -> Tensors:
    """Return the tensors that have a cosine in our report.csv."""
    with (folder / "report.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {(int(row["rank"]), row["data_id"]) for row in rows if is_number(row["cosine_similarity"])}


def is_number(text: str) -> bool:
    """Tell whether a field of a table holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def main() -> int:
    """Print the table; return 1 if the tools did not compare the same tensors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=200, help="tensors of each rank")
    parser.add_argument("--threads", type=int, default=1, help="of BLAS, for both tools")
    parser.add_argument("--environment", type=Path, help="where msprobe is installed, or is to be, and stays")
    options = parser.parse_args()
    os.environ |= dict.fromkeys(THREADS, str(options.threads))
    folder = Path(tempfile.mkdtemp(prefix="peer-msprobe-"))
    try:
        environment = (options.environment or folder / "environment").absolute()
        make_environment(environment)
        golden = make_dump(environment, folder / "golden", options.pairs, 0.0)
        actual = make_dump(environment, folder / "actual", options.pairs, DRIFT)
        files = [path for side in (golden, actual) for path in side.rglob("*.pt")]
        nbytes = sum(len(path.read_bytes()) for path in files)  # they are in memory from here on
        print(f"{len(files)} files of msprobe's, {nbytes / 1e9:.2f} GB: {RANKS} ranks x {options.pairs} pairs of 4 MiB")
        msprobe = environment / "bin" / "msprobe"
        ratios, ours, theirs = [], [], []
        for number in range(options.rounds):
            outputs = folder / f"msprobe{number}", folder / f"aclcmp{number}"
            theirs.append(run(msprobe, "compare", "-tp", actual, "-gp", golden, "-o", outputs[0]))
            compare = (sys.executable, "-m", "aclcmp", "compare", golden, actual, "--output", outputs[1])
            ours.append(run(*compare, good=(0, 1), cwd=folder))
            ratios.append(theirs[-1] / ours[-1])
            print(f"msprobe {theirs[-1]:6.2f} s   aclcmp {ours[-1]:6.2f} s   ratio {ratios[-1]:5.2f}", flush=True)
            expected, found = tensors_of_msprobe(outputs[0]), tensors_of_aclcmp(outputs[1])
            if len(expected) != RANKS * options.pairs or found != expected:
                print(f"msprobe compared {len(expected)} tensors, aclcmp {len(found)}: {sorted(expected ^ found)[:5]}")
                return 1
        ratio = statistics.median(ratios)
        print(
            f"median  {statistics.median(theirs):6.2f} s          {statistics.median(ours):6.2f} s   ratio {ratio:5.2f}"
            f"   bound {BOUND:.0f} for 200 pairs: {'met' if ratio >= BOUND else 'missed'}"
        )
        print(f"both compared the same {RANKS * options.pairs} tensors")
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
