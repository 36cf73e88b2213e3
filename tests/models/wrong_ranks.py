"""One rank of four whose labels declare impossible layouts; each label is named after what is wrong with it."""

import os

import torch

from aclcmp import Partial, Replicate, Shard, set_label

RANK = int(os.environ["RANK"])
WHOLE = torch.arange(4 * 32, dtype=torch.float32).reshape(4, 32)


def label(name: str, local: torch.Tensor, layout: object) -> None:
    set_label("golden", name, WHOLE)
    set_label("actual", name, local, layout=layout)


columns, rows = WHOLE.chunk(4, 1)[RANK], WHOLE.chunk(4, 0)[RANK]
label("good", columns, Shard(1))
label("no such dimension", columns, Shard(2))
label("no such dimension from the end", columns, Shard(-3, ranks=range(4)))
label("parts that do not add up", columns, Shard(1, parts=(4, 3)))
label("parts that cannot be shared", columns, Shard(1, parts=(30, 2)))
label("overlapping ranks", columns, Shard(1, ranks=(0, 1) if RANK < 2 else (1, 2, 3)))
label("without itself", columns, Shard(1, ranks=(0, 1, 2)))
label("ranks in two orders", columns, Shard(1, ranks=(0, 1, 2, 3) if RANK else (3, 2, 1, 0)))
label("two minds", columns, Shard(1) if RANK else Replicate())
label("other sizes beside", WHOLE[: 3 + (RANK != 2), :8], Shard(1))
label("slices told replicas", WHOLE[: 1 + RANK], Replicate())
label("summands of two shapes", WHOLE[: 3 + (RANK == 1)], Partial())
label("odd in zigzag", WHOLE[:, RANK * 7 : RANK * 7 + 7], Shard(1, zigzag=True))
label("larger than all", columns, Shard(1, size=33))
label("too small a whole", columns, Shard(0))
label("grid with a rank in two rows", rows[:, :16], (Shard(0, ranks=(RANK // 2 * 2, 3)), Shard(1, ranks=(RANK,))))
if RANK != 3:
    label("a rank is missing", columns, Shard(1, ranks=range(4)))
    label("a summand is missing", WHOLE, Partial(ranks=range(4)))
# what cannot be, whatever the others say, is told at once: the label fails
label("no layout", columns, "Shard(1)")
label("parts and padding", columns, Shard(1, parts=(4, 4), size=30))
label("twice a rank", columns, Shard(1, ranks=(0, 1, 2, 2)))
label("a mesh without ranks", columns, (Shard(0), Shard(1)))
label("negative parts", columns, Shard(1, parts=(-1, 9)))
