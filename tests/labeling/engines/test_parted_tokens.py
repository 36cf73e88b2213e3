"""Of which tokens golden records gradients, and what it says where it cannot."""

from typing import Any

import pytest

from aclcmp.labeling.engines import parted_tokens
from aclcmp.labeling.engines.margin_gradients import Gradient
from aclcmp.labeling.engines.parted_tokens import PartedTokens, gradient_points, record_margins
from aclcmp.labeling.shard.margin_table import Margin

torch: Any = pytest.importorskip("torch")
TOKENS = {0: 3, 1: 1, 2: 2, 3: 0, 4: 4}


def logits(*rows: tuple[int, float]) -> Any:
    """Return logits whose best token is told for each row, and by how much."""
    found = torch.zeros(len(rows), 6)
    for row, (best, size) in enumerate(rows):
        found[row, best] = size
    return found


def parted(*requests: str) -> PartedTokens:
    found = PartedTokens()
    for request in requests:
        # the engine went on with 1, 2, 0 and 4; behind the last one nobody knows
        found.add(request, TOKENS, [0, 1, 2, 3, 4], logits((1, 1.0), (5, 0.5), (3, 2.0), (5, 1.0), (1, 9.0)))
    return found


def test_the_first_and_the_clearest_of_each_request() -> None:
    assert list(parted("a").chosen()) == [Margin("a", 2, 5, 2), Margin("a", 3, 3, 0)]


def test_only_the_first_requests() -> None:
    names = [f"{number}" for number in range(20)]
    assert [margin.request for margin in parted(*names).chosen()] == [name for name in names[:8] for _ in range(2)]


def test_a_request_that_does_not_part_has_none() -> None:
    found = PartedTokens()
    found.add("a", TOKENS, [0, 4], logits((1, 1.0), (0, 0.0), (0, 0.0), (0, 0.0), (5, 1.0)))
    assert list(found.chosen()) == []


def test_the_rows_of_a_gradient_are_the_last_of_the_text() -> None:
    whole, last = (Gradient(name, (name,), torch.ones(size, 2)) for name, size in (("layers.0", 3), ("lm_head", 1)))
    (_, _, _, rows), (_, _, values, row) = gradient_points(Margin("a", 3, 1, 2), [7, 8, 9], [whole, last])
    assert rows.named.table.tolist() == [[0, 0, 7], [0, 1, 8], [0, 2, 9]]
    assert row.named.table.tolist() == [[0, 2, 9]] and values.dtype == "float32"


@pytest.mark.parametrize("case", ["too long", "no autograd"])
def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    def gradients(*_: Any) -> list[Gradient]:
        if case == "no autograd":
            raise RuntimeError("Inference tensors cannot be saved for backward")
        return [Gradient("layers.0", ("layers.0",), torch.ones(2, 64))]

    recorded: list[Margin] = []
    monkeypatch.setattr(parted_tokens, "margin_gradients", gradients)
    monkeypatch.setattr(parted_tokens, "record_margin", lambda margin, _points: recorded.append(margin))
    monkeypatch.setattr(parted_tokens, "_MOST_BYTES", 600)
    said: list[str] = []
    record_margins(None, parted("a"), {"layers.0"}, said.append)
    if case == "too long":
        assert recorded == [Margin("a", 2, 5, 2)]
        assert said[-1] == "of 2 tokens that part the layer is told for the first 1: their texts are long"
    else:
        assert not recorded and said == [
            "no layer is told for tokens that part: RuntimeError: Inference tensors cannot be saved for backward"
        ]
