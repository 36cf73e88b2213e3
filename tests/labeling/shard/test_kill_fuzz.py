"""kill -9 at a random instant: every label whose call returned is read back bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.shard_files import dataset_name, shards_in
from aclcmp.labeling.shard.shard_reader import read_label, read_shard

KILLS = 60

VICTIM = """
import os, sys
import numpy as np
from aclcmp import set_label
sizes = [int(n) for n in sys.argv[1].split(",")]
random = np.random.default_rng(int(sys.argv[2]))
number = 0
while True:
    values = np.full(sizes[int(random.integers(len(sizes)))] // 8, number, np.int64)
    set_label("pta", f"x{number}", values)
    values[:] = -1  # the buffer is reused: the value at the call counts
    os.write(1, b".")
    number += 1
"""


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_random(tmp_path: Path, seed: int) -> None:
    sizes = ("64,1024,5000", "4194304", "64,4194304,100000")[seed % 3]
    environ = {**os.environ, "ACLCMP_SHARD_DIR": str(tmp_path), "RANK": "0", "ACLCMP_RUN_ID": "fuzz"}
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, sizes, str(seed)], env=environ, stdout=subprocess.PIPE)
    assert victim.stdout is not None
    victim.stdout.read(1)
    time.sleep(random.Random(seed).uniform(0, 0.25))
    victim.send_signal(signal.SIGKILL)
    acknowledged = 1 + len(victim.stdout.read())
    victim.wait()
    victim.stdout.close()

    (files,) = shards_in(tmp_path)
    index = read_shard(files)
    assert len(index.records) in (acknowledged, acknowledged + 1)
    for number, record in enumerate(index.records):
        assert record.data_id == f"x{number}" and not record.error
        assert (read_label(index, record) == number).all()
    if seed % 10 == 0:
        recover(files.segment(0))
        with h5py.File(files.segment(0)) as file:
            for number in range(acknowledged):
                values = file[dataset_name(0, f"x{number}", 0, "pta")][:]
                assert np.array_equal(values, np.full(len(values), number))
