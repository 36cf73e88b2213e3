"""Requests of an engine's passes, found from the inputs of batches alone: against schedules of known requests."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.dumps.batch_rows import PassRows, RequestsOfPasses

Part = tuple[int, list[int]]
"""First position, and the tokens of a request in one pass."""


def numbers(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def name(requests: RequestsOfPasses, *parts: Part, padding: int = 0) -> PassRows | None:
    tokens = [token for _, row in parts for token in row] + [0] * padding
    positions = [start + place for start, row in parts for place in range(len(row))] + [0] * padding
    lengths = [start + len(row) for start, row in parts] + [1] * padding
    return requests.name_rows(numbers(tokens), numbers(positions), numbers(lengths))


def names(found: PassRows | None) -> list[int]:
    assert found is not None
    return [int(row[0]) for row in found.rows.numbers]


def test_chunks_and_decode_steps_go_on_with_their_request() -> None:
    requests = RequestsOfPasses()
    assert names(name(requests, (0, [5, 6, 7]))) == [0] * 3
    assert names(name(requests, (3, [8]), (0, [5, 9]))) == [0, 1, 1]  # the last chunk of one, all of another
    assert names(name(requests, (4, [1]), (2, [1]))) == [0, 1]
    assert names(name(requests, (3, [2]))) == [1]  # the first has ended
    assert requests.unnamed == 0


def test_requests_of_one_length_keep_their_order_until_one_of_them_ends() -> None:
    requests = RequestsOfPasses()
    name(requests, (0, [5, 6]), (0, [7, 8]), (0, [7, 9, 1]))
    assert names(name(requests, (2, [1]), (2, [1]), (3, [4]))) == [0, 1, 2]
    assert names(name(requests, (3, [1]), (4, [1]))) == [-1, 2]  # one of the first two has ended: which?
    assert names(name(requests, (4, [1]), (5, [1]))) == [-1, 2]  # it stays unknown
    assert requests.unnamed == 2


def test_a_prefix_of_the_cache_counts_where_only_one_is_possible() -> None:
    requests = RequestsOfPasses()
    name(requests, (0, [5, 6, 7, 8]))
    found = name(requests, (2, [9]), (4, [1]))
    assert found is not None and names(found) == [1, 0]
    assert found.rows.prompts[1] == (5, 6) and found.rows.requests[1] == (0, "1")
    name(requests, (0, [5, 2, 2]))
    assert names(name(requests, (2, [3]))) == [-1]  # behind [5, 6] or [5, 2]


@pytest.mark.parametrize("lost", ["a pass that is missing", "a tree of drafts"])
def test_names_end_with_a_pass_that_is_not_understood(lost: str) -> None:
    requests = RequestsOfPasses()
    name(requests, (0, [5, 6, 7, 8]), (0, [5, 2]))
    assert requests.name_rows(numbers([]), numbers([]), numbers([])) is None  # an idle pass
    assert names(name(requests, (4, [1]), (2, [3]))) == [0, 1]
    if lost == "a tree of drafts":
        assert requests.name_rows(numbers([5, 6, 7]), numbers([3, 4, 4]), numbers([5])) is None
    else:
        requests.lose_track()
    assert names(name(requests, (5, [1]))) == [-1]  # may be another one, which the pass brought to this length
    assert names(name(requests, (1, [9]))) == [-1]  # behind [5], or behind what that pass computed
    assert names(name(requests, (0, [4] * 4))) == [4] * 4
    assert names(name(requests, (4, [4]))) == [4]


def test_rows_of_logits_are_the_last_of_each_request_and_padding_is_none() -> None:
    found = name(RequestsOfPasses(), (0, [5, 6]), (0, [7]), padding=2)
    assert found is not None
    assert found.last.numbers.tolist() == [[0, 1, 6], [1, 0, 7], [-1, 0, 0], [-1, 0, 0]]
    assert found.rows.numbers[:, 0].tolist() == [0, 0, 1, -1, -1]


@pytest.mark.parametrize(
    ("tokens", "positions", "lengths"),
    [
        ([], [], []),
        ([5, 6], [0], [2]),
        ([5, 6], [0, 1], []),
        ([5, -6], [0, 1], [2]),
        ([5, 2**40], [0, 1], [2]),
        ([5, 6], [0, 1], [3]),  # more than there are
        ([5, 6], [0, 1], [1]),  # rows of no request
        ([5, 6], [0, 2], [3]),
        ([5, 6, 7], [3, 4, 4], [5]),  # a tree of drafts
        ([5, 6], [4, 5], [2]),
    ],
)
def test_what_is_no_batch_of_requests_has_no_names(tokens: list[int], positions: list[int], lengths: list[int]) -> None:
    assert RequestsOfPasses().name_rows(numbers(tokens), numbers(positions), numbers(lengths)) is None


def common_length(one: list[int], other: list[int]) -> int:
    return sum(itertools.takewhile(bool, (a == b for a, b in zip(one, other, strict=False))))


@settings(max_examples=150)
@given(st.data())
def test_what_is_named_is_the_text_of_the_row(data: st.DataObject) -> None:
    """A scheduler as SGLang's: prefill goes first, in chunks, behind cached prefixes; decode keeps the order."""
    texts = data.draw(st.lists(st.lists(st.integers(1, 3), min_size=2, max_size=9), min_size=1, max_size=5))
    budget = data.draw(st.integers(2, 6))
    waiting, running, cached = list(range(len(texts))), list[int](), list[list[int]]()
    done = dict.fromkeys(waiting, 0)
    prompts = [data.draw(st.integers(1, len(text) - 1)) for text in texts]
    requests = RequestsOfPasses()
    seen: dict[int, dict[int, int]] = {}
    nameless = 0
    while waiting or running:
        parts: list[tuple[int, Part]] = []
        left = budget
        if waiting and (not running or done[waiting[0]] or data.draw(st.booleans())):
            while waiting and left:
                request = waiting[0]
                if done[request] == 0 and data.draw(st.booleans()):  # the longest prefix that the cache has
                    common = [common_length(texts[request], each) for each in cached]
                    hit = min(max([0, *common]), prompts[request] - 1)
                    done[request] = 0 if hit in done.values() else hit  # as long as another one: see the module
                end = min(prompts[request], done[request] + left)
                parts.append((request, (done[request], texts[request][done[request] : end])))
                left -= end - done[request]
                done[request] = end
                if end < prompts[request]:
                    break
                running.append(waiting.pop(0))
        else:
            parts = [(request, (done[request], [texts[request][done[request]]])) for request in running]
            done.update({request: done[request] + 1 for request in running})
        cached += [texts[request][: done[request]] for request, _ in parts]
        running = [each for each in running if done[each] < len(texts[each])]
        found = name(requests, *(part for _, part in parts))
        assert found is not None
        truth = [request for request, (_, tokens) in parts for _ in tokens]
        for request, (number, position, token) in zip(truth, found.rows.numbers.tolist(), strict=True):
            nameless += number < 0
            if number >= 0:
                known = seen.setdefault(number, dict(enumerate(found.rows.prompts.get(number, ()))))
                known[position] = token
                assert [known.get(each) for each in range(position + 1)] == texts[request][: position + 1]
    assert requests.unnamed == nameless
