"""One rank of several runs of examples/op_layer_model/run.py, each two tasks, each with its own dump folder."""

import json
import os
import sys

import run

for plan in json.loads(sys.argv[1]):
    os.environ |= {
        "MASTER_PORT": str(plan["port"]),
        "ATB_SAVE_TENSOR": "1",
        "ATB_OUTPUT_DIR": plan["dumps"],
        "ASDOPS_LOG_TO_FILE_DIR": plan["dumps"],
        "ACLTRANSFORMER_HOME_PATH": plan["dumps"],
    }
    run.main([*plan["options"].split(), "--generation", plan["generation"]])
