"""Where the files of ranks are: on the node where they ran, on one that shares it, in a copy, or out of reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.cluster.file_locations import (
    FileLocations,
    LocatedShards,
    NodeView,
    locate_shards,
    node_of,
    unreachable_sentences,
)
from aclcmp.orchestrator.cluster.file_visibility import check_visibility, remove_nonces, write_nonce
from aclcmp.orchestrator.compare import schedule
from aclcmp.orchestrator.run.directory import RunDir
from tests.compare.test_schedule import pair_of

NODES = [Node(name, f"10.0.0.{number}", f"host-{name}", 2, {}) for number, name in enumerate("abc", 1)]
RAN = {rank: (NODES[rank // 2].node_id, NODES[rank // 2].ip, NODES[rank // 2].host) for rank in range(6)}


def seen(ranks: str = "", nodes: str = "", *, there: bool = True) -> NodeView:
    return NodeView(there, frozenset(map(int, ranks)), frozenset(nodes))


def found(a: NodeView | str, b: NodeView | str, c: NodeView | str, nodes: list[Node] = NODES) -> LocatedShards:
    return locate_shards(RAN, nodes, dict(zip("abc", (a, b, c), strict=True)))


def test_nothing_shared() -> None:
    here = found(seen("01", "a"), seen("23", "b"), seen("45", "c"))
    assert [here.places.home(rank) for rank in range(6)] == list("aabbcc")
    assert here.readers == {"a": {0, 1}, "b": {2, 3}, "c": {4, 5}} and not here.lost
    assert not here.places.alike and here.places.sees("b", 2) and not here.places.sees("a", 2)


def test_without_a_node_its_ranks_are_where_the_same_files_are_seen() -> None:
    here = found(seen("01", "a"), seen("2345", "bc"), seen("2345", "bc")).places
    left = here.without("b")
    assert [left.home(rank) for rank in range(6)] == list("aacccc") and not left.sees("b", 2)
    assert left.without("c") == left  # nobody sees those any more: it is told by their home
    assert here.without("a") == here and left.without("b") == left
    everything = seen("012345", "abc")
    three = found(everything, everything, everything).places.without("b")
    assert [three.home(rank) for rank in range(6)] == list("aaaccc")  # spread over those that are left


def test_a_shared_file_system() -> None:
    """All see all: each shard is read once, where its rank ran, and each node reads every file as its own."""
    everything = seen("012345", "abc")
    here = found(everything, everything, everything)
    assert here.readers == {"a": {0, 1}, "b": {2, 3}, "c": {4, 5}}
    assert all(here.places.sees(node, rank) for node in "abc" for rank in range(6))


def test_two_of_three_share() -> None:
    here = found(seen("01", "a"), seen("2345", "bc"), seen("2345", "bc"))
    assert here.places.sees("c", 2) and here.places.sees("b", 5) and not here.places.sees("a", 2)
    assert here.places.readers(3) == {"b", "c"} and here.places.readers(0) == {"a"}


def test_a_copy_counts_only_where_the_source_is_gone() -> None:
    here = found(seen("012345", "a"), seen("23", "b"), seen("45", "c"))
    assert [here.places.home(rank) for rank in range(6)] == list("aabbcc")
    fetched = found(seen("012345", "a"), "host b did not answer", seen("", "c", there=False))
    assert [fetched.places.home(rank) for rank in range(6)] == ["a"] * 6 and not fetched.lost


def test_a_host_is_found_again_by_address_and_name() -> None:
    back = [NODES[0], replace(NODES[1], node_id="e"), replace(NODES[2], host="other", node_id="d")]
    here = locate_shards(RAN, back, {"a": seen("01", "a"), "e": seen("2", "e"), "d": seen("4", "d")})
    assert here.places.home(2) == here.places.home(3) == "e"
    assert here.places.home(4) == "d", "by its shards, though the host has another name"
    assert here.lost.keys() == {5}


def test_the_host_of_a_local_ray_is_found_again_by_its_name() -> None:
    """The address of a local Ray is one of loopback, the same on all hosts."""
    assert node_of(("gone", "127.0.0.1", "host-b"), NODES) == "b"
    assert node_of(("gone", "127.0.0.1", "host-z"), NODES) is None
    assert node_of(("gone", "10.0.0.9", "host-b"), NODES) is None


def test_lost_ranks_and_why() -> None:
    gone = found(seen("01", "a"), seen("23", "b"), "", NODES[:2])
    assert gone.lost.keys() == {4, 5} and "host host-c (10.0.0.3), which has left the cluster" in gone.lost[4]
    mute = found(seen("01", "a"), "host b did not answer within 60 s", seen("45", "c"))
    assert "which cannot be asked: host b did not answer within 60 s" in mute.lost[2]
    empty = found(seen("01", "a"), seen("", "b", there=False), seen("45", "c"))
    assert "which has no such run directory now" in empty.lost[3]
    silent = found(seen("01", "a"), seen("2", "b"), seen("45", "c"))
    assert not silent.lost and silent.places.home(3) == "b", "a rank that recorded nothing is not lost"
    assert unreachable_sentences(gone.lost) == [
        "ranks 4-5: their shards lie on host host-c (10.0.0.3), which has left the cluster"
    ]


def test_ranks_that_the_record_does_not_name() -> None:
    here = locate_shards({}, NODES, {"a": seen("", "a"), "b": seen("79", "b"), "c": seen("9", "c")})
    assert here.readers == {"b": {7, 9}} and here.places.home(0) == "a"


SHARED = FileLocations("a", dict.fromkeys(range(6), "a"), {node: frozenset("abc") for node in "abc"})


def test_work_on_shared_files_is_spread_over_all_that_see_them() -> None:
    pairs = [pair_of((1024, 1024), (1024, 1024), (0, 0), (rank % 6,), (rank % 6,)) for rank in range(60)]
    work = schedule.spread(pairs, SHARED, {"a": 2, "b": 2, "c": 4})
    assert sum(map(len, work.values())) == 60
    assert work.keys() == set("abc") and len(work["c"]) > len(work["b"]) >= 10
    assert all(schedule.missing_reads(each, node, SHARED) == {} for node, each in work.items()), "nothing travels"


def test_small_work_stays_where_its_ranks_ran() -> None:
    places = replace(SHARED, homes={0: "a", 1: "b"})
    pairs = [pair_of((4,), (4,), (0,), (0,), (rank % 2,)) for rank in range(8)]
    work = schedule.spread(pairs, places, dict.fromkeys("abc", 2))
    assert {node: {pair.rank for pair in each} for node, each in work.items()} == {"a": {0}, "b": {1}}


def test_what_is_not_shared_stays() -> None:
    places = FileLocations("a", {0: "a", 1: "d"}, {node: frozenset("abc") for node in "abc"})
    pairs = [pair_of((2048, 2048), (2048, 2048), (0, 0), (0,), (1,)) for _ in range(20)]
    assert schedule.spread(pairs, places, dict.fromkeys("abcd", 2)).keys() == {"d"}
    assert schedule.missing_reads(pairs[:1], "d", places).keys() == {"a"}


def test_a_node_without_cores_gives_its_work_away() -> None:
    pairs = [pair_of((2048, 2048), (2048, 2048), (0, 0))] * 9
    assert schedule.spread(pairs, SHARED, {"b": 1, "c": 1}).keys() == {"b", "c"}


def test_what_a_node_leaves_is_seen_through_the_same_folder_alone(tmp_path: Path) -> None:
    first, other = RunDir(tmp_path / "first", "r"), RunDir(tmp_path / "other", "r")
    first.shards.mkdir(parents=True)
    other.root.mkdir()
    (first.shards / "rank00003.journal").touch()
    (first.shards / "rank00004.h5.part").touch()
    (token,), (second,) = write_nonce(first), write_nonce(other)
    assert write_nonce(RunDir(tmp_path / "none", "r")) == ()
    tokens = (token, second, "../other/run")
    assert check_visibility(first, tokens) == (True, frozenset({3}), (token,))
    assert check_visibility(other, tokens) == (True, frozenset(), (second,))
    assert check_visibility(RunDir(tmp_path / "none", "r"), tokens) == (False, frozenset(), ())
    assert remove_nonces(first, tokens) and remove_nonces(other, tokens)
    assert [path.name for path in first.root.iterdir()] == ["shards"] and not list(other.root.iterdir())


@pytest.mark.parametrize("rank", [0, 5, 77])
def test_one_place_for_all(rank: int) -> None:
    assert (
        FileLocations("a").home(rank) == "a"
        and FileLocations("a").sees("a", rank)
        and not FileLocations("a").sees("b", rank)
    )
