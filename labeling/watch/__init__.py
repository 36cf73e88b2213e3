"""Labels without editing the model: forward hooks on modules chosen by name."""

from aclcmp.labeling.watch.handle import Watch, watch

__all__ = ["Watch", "watch"]
