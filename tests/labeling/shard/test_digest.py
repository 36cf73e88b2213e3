"""The digest as its documentation reads, in plain Python, against numpy; what it tells apart."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.shard.digest import digests, keys, mixed, words_of

MASK64, MASK32 = 2**64 - 1, 2**32 - 1


def naive_mixed(number: int) -> int:
    number = (number + 0x9E3779B97F4A7C15) & MASK64
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & MASK64
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & MASK64
    return number ^ number >> 31


def naive_digest(data: bytes) -> bytes:
    """Return both lanes of the digest of bytes."""
    table = [int(key) for key in np.random.Philox(key=0xAC1C3C).random_raw(1025)]
    data += bytes(-len(data) % 8)
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    lanes = [0, 0]
    for block in range(-(-len(words) // 1024)):
        for lane in range(2):
            total = 0
            for word, key in zip(words[1024 * block : 1024 * (block + 1)], table[lane:], strict=False):
                low, high = (word + key) & MASK32, ((word >> 32) + (key >> 32)) & MASK32
                total += low * high
            lanes[lane] += naive_mixed((total + block * 0xD1342543DE82EF95) & MASK64)
    return b"".join((lane & MASK64).to_bytes(8, "little") for lane in lanes)


def digest_of(data: bytes) -> bytes:
    return digests(words_of(np.frombuffer(data, np.uint8)[None])).astype("<u8").tobytes()


@given(st.binary(max_size=100), st.sampled_from([0, 1, 700, 8192, 9000, 20_000]))
def test_is_the_documented_one(data: bytes, more: int) -> None:
    data += np.random.default_rng(len(data)).bytes(more)
    assert digest_of(data) == naive_digest(data)


@given(st.integers(0, 2**64 - 1))
def test_mixes_as_documented(number: int) -> None:
    assert int(mixed(np.array([number], np.uint64))[0]) == naive_mixed(number)


def test_keys_are_frozen() -> None:
    """Runs of different versions are compared: if this fails, the version of summaries must change."""
    assert keys().shape == (1025,) and keys()[:2].tolist() == [3840842477589290155, 635806272397723065]
    assert digest_of(bytes(range(40))).hex() == "7c698c28ee61dd07cce8a2fbf8744825"


def test_rows_have_the_digests_that_they_have_alone() -> None:
    rows = np.frombuffer(np.random.default_rng(0).bytes(7 * 9001), np.uint8).reshape(7, -1)
    together = digests(words_of(rows))
    assert [each.astype("<u8").tobytes() for each in together] == [digest_of(row.tobytes()) for row in rows]


def test_blocks_may_be_taken_one_by_one() -> None:
    words = np.random.default_rng(0).integers(0, 2**63, (1, 5000)).astype(np.uint64)
    parts = [digests(words[:, 2048:4096], 2), digests(words[:, :2048]), digests(words[:, 4096:], 4)]
    np.testing.assert_array_equal(sum(parts[1:], parts[0]), digests(words))


def test_every_bit_counts_in_both_lanes() -> None:
    data = np.random.default_rng(0).bytes(24)
    found = set()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        found |= {digest_of(bytes(changed))[:8], digest_of(bytes(changed))[8:]}
    assert len(found) == 2 * 8 * len(data) and not found & {digest_of(data)[:8], digest_of(data)[8:]}


def test_the_place_of_what_is_equal_counts() -> None:
    """Words, blocks and elements that change places; sums that do not depend on places would miss them."""
    words = np.random.default_rng(0).integers(0, 2**63, 4096).astype(np.uint64)
    block = words.reshape(4, 1024)
    orders = [words, words[::-1], np.roll(words, 1), block[[1, 0, 2, 3]].ravel(), block[[0, 1, 3, 2]].ravel()]
    zeros = [np.zeros(4096, np.uint64) for _ in range(3)]
    zeros[1][5], zeros[2][1029] = 1, 1
    found = {digest_of(each.tobytes()) for each in (*orders, *zeros)}
    assert len(found) == len(orders) + len(zeros)
