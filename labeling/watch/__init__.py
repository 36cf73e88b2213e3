"""Labels without editing the model: forward hooks on modules chosen by name."""

from aclcmp.labeling.watch.watching import Watch, watch

__all__ = ["Watch", "watch"]
