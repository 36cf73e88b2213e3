"""The digest of a tensor's bits, which C, numpy and torch compute alike: in steps that vectors of integers have.

It is NH, the hash of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway 1999), in two lanes for 128 bits. The dense bits,
filled up with zero bytes, are 64-bit words, low byte first (integers and bool are int64, whatever their width). Of each
block of 1,024 words a lane is the sum of (low half + low half of key[i]) x (high half + high half of key[i]), halves
added modulo 2^32 and products modulo 2^64, over its words i; the second lane takes key[i + 1]. Blocks add up, each
mixed with its number, so that they may be taken in any order.

Other bits of the same length have the same digest with a probability of some 2^-64 for each pair. That protects against
chance, not against someone who knows the keys and chooses the bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

WORDS = 1024
"""Words of a block."""
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Constants of `mixed`: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
BLOCK_STEP = 0xD1342543DE82EF95
"""Added to a block's sum before it is mixed, times the number of the block."""
BEYOND = 0xAC1C3B
"""What is added to the first lane, mixed, where an unsigned integer is beyond int64."""
_KEY = 0xAC1C3C
_LOW = np.uint64(0xFFFFFFFF)

_Words = npt.NDArray[np.uint64]


@cache
def keys() -> _Words:
    """Return the key of each word of a block, and one more for the second lane: shape (1025,)."""
    return np.random.Philox(key=_KEY).random_raw(WORDS + 1)


def mixed(numbers: _Words) -> _Words:
    """Return numbers mixed to what looks like chance; one to one."""
    numbers = numbers + np.uint64(GOLDEN)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(FIRST)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(SECOND)
    return numbers ^ (numbers >> np.uint64(31))


def digests(words: _Words, block: int = 0) -> _Words:
    """Return both lanes of each row of words, which begin with block number `block`: shape (rows, 2)."""
    found = np.zeros((len(words), 2), np.uint64)
    for number, start in enumerate(range(0, words.shape[1], WORDS), start=block):
        part = words[:, start : start + WORDS]
        for lane in range(2):
            key = keys()[lane : lane + part.shape[1]]
            low = ((part & _LOW) + (key & _LOW)) & _LOW
            high = ((part >> np.uint64(32)) + (key >> np.uint64(32))) & _LOW
            found[:, lane] += mixed((low * high).sum(axis=1, dtype=np.uint64) + _step(number))
    return found


def places_digest(places: npt.NDArray[np.int64]) -> _Words:
    """Return the digest of each of some numbers, which add up in any order."""
    return mixed(places.astype(np.uint64))


def _step(block: int) -> np.uint64:
    return np.uint64(block * BLOCK_STEP % 2**64)


def words_of(bits: npt.NDArray[np.uint8]) -> _Words:
    """Return the bytes of each row as words, filled up with zeros: shape (rows, words)."""
    missing = -bits.shape[1] % 8
    whole = np.pad(bits, ((0, 0), (0, missing))) if missing else bits
    return np.ascontiguousarray(whole).view("<u8").astype(np.uint64, copy=False)
