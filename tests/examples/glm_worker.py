"""One rank of several runs of examples/glm/run.py, each two tasks: importing torch costs far more than a run."""

import json
import os
import sys

import run

for port, options in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    run.main(options)
