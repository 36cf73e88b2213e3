"""Golden order keeps every rank's order and mixes stages sensibly."""

from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.plan.golden_order import golden_order


def chain(*names: str, start: float = 0.0, task: int = 0) -> list[tuple[LabelKey, float]]:
    return [(LabelKey(task, name, 0), start + n) for n, name in enumerate(names)]


def names(keys: list[LabelKey]) -> list[str]:
    return [key.label for key in keys]


def test_same_chains() -> None:
    assert names(golden_order([chain("z", "y", "x")] * 3)) == ["z", "y", "x"]


def test_a_rank_fills_gaps_of_another() -> None:
    assert names(golden_order([chain("a", "c"), chain("a", "b", "c")])) == ["a", "b", "c"]


def test_pipeline_stages_follow_by_time() -> None:
    assert names(golden_order([chain("l0", "l1", start=0), chain("l2", "l3", start=100)])) == ["l0", "l1", "l2", "l3"]


def test_tasks_first() -> None:
    late = chain("a", start=50, task=1)
    assert [key.task for key in golden_order([late + chain("b", start=99)])] == [0, 1]


def test_contradiction_goes_by_time() -> None:
    assert names(golden_order([chain("a", "b", start=0), chain("b", "a", start=10)])) == ["a", "b"]


def test_nothing() -> None:
    assert golden_order([]) == []


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8), max_size=5))
def test_every_label_once_whatever_the_ranks_say(orders: list[list[str]]) -> None:
    merged = golden_order([chain(*order) for order in orders])
    assert sorted(names(merged)) == sorted({name for order in orders for name in order})


@given(st.permutations("abcdefgh"), st.lists(st.sets(st.sampled_from("abcdefgh")), max_size=5))
def test_subsets_of_one_order_keep_it(order: list[str], subsets: list[set[str]]) -> None:
    chains = [chain(*(name for name in order if name in subset)) for subset in subsets]
    merged = names(golden_order(chains))
    for subset in subsets:
        assert [name for name in merged if name in subset] == [name for name in order if name in subset]
