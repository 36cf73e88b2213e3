"""The smallest set of changes, against all sets of few changes."""

from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.bisect.smallest_set import Choice, smallest_set, trials_for_one


@given(st.integers(1, 9), st.data())
def test_none_of_the_found_can_be_left_out(count: int, data: st.DataObject) -> None:
    """For any rule by which more changes never harm: those of the smallest sets that mend it."""
    changes = tuple(f"c{number}" for number in range(count))
    needed = data.draw(st.lists(st.sets(st.sampled_from(changes), min_size=1), min_size=1, max_size=3))
    tried: list[Choice] = []

    def mends(choice: Choice) -> bool:
        tried.append(choice)
        return any(each <= set(choice) for each in needed)

    found = smallest_set(changes, mends)
    assert any(each <= set(found) for each in needed)
    for name in found:
        left = set(found) - {name}
        assert not any(each <= left for each in needed), "one of them could be left out"
    assert list(found) == [name for name in changes if name in found]
    assert len(tried) == len(set(tried)), "the same set is not tried twice"
    assert changes not in tried and () not in tried, "all are known to mend it, none not to"


@given(st.integers(1, 64), st.data())
def test_one_that_matters_is_found_in_few_trials(count: int, data: st.DataObject) -> None:
    changes = tuple(map(str, range(count)))
    culprit = data.draw(st.sampled_from(changes))
    tried: list[Choice] = []

    def mends(choice: Choice) -> bool:
        tried.append(choice)
        return culprit in choice

    assert smallest_set(changes, mends) == (culprit,)
    assert len(tried) + 1 <= trials_for_one(count), "what is told beforehand holds"


def test_a_rule_that_is_not_monotone_ends() -> None:
    assert smallest_set(("a", "b", "c"), lambda choice: len(choice) == 2) in {("a", "b"), ("a", "c"), ("b", "c")}
