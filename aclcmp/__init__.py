"""Label tensors in a script; `aclcmp --exec "python script.py" --ranks 8` compares them across ranks.

    from aclcmp import gen_id, perturb, rows, set_label, set_task_id, watch

Every call is a no-op unless the script was started by `aclcmp`, so labels may stay in production code.
"""

from aclcmp.labeling.api import gen_id, rows, set_label, set_task_id
from aclcmp.labeling.layout import Partial, Replicate, Shard
from aclcmp.labeling.perturb import perturb
from aclcmp.labeling.watch import watch

__version__ = "0.1.0"

__all__ = ["Partial", "Replicate", "Shard", "gen_id", "perturb", "rows", "set_label", "set_task_id", "watch"]
