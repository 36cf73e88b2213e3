"""A rank's live output stays readable and bounded; cutting it anywhere makes no difference."""

from hypothesis import given
from hypothesis import strategies as st

from aclcmp.orchestrator.launch.guarded_command import MAX_LINE, MAX_WAITING, LiveLines


def taken(*chunks: bytes) -> tuple[tuple[str, ...], int]:
    live = LiveLines()
    for chunk in chunks:
        live.feed(chunk)
    live.finish()
    return live.take()


def test_lines() -> None:
    assert taken(b"a\nb", b"c\n\nd") == (("a", "bc", "", "d"), 0)
    assert taken(b"dos\r\nbar 1%\rbar 50%\rbar 100%\nend") == (("dos", "bar 100%", "end"), 0)
    assert taken("ü".encode()[:1], "ü".encode()[1:] + b"\xff\n") == (("ü\ufffd",), 0)
    assert taken() == ((), 0)


@given(st.lists(st.binary(max_size=20)))
def test_the_cuts_do_not_matter(chunks: list[bytes]) -> None:
    assert taken(*chunks) == taken(b"".join(chunks))


def test_a_line_without_end_is_shown_in_pieces() -> None:
    lines, hidden = taken(*[b"x" * 1000] * 100)
    assert hidden == 0 and "".join(lines) == "x" * 100_000
    assert max(map(len, lines)) <= MAX_LINE + 1000


def test_a_progress_bar_without_end_shows_its_last_state() -> None:
    live = LiveLines()
    for step in range(100_000):
        live.feed(b"\rstep %d" % step)
    assert not live
    live.finish()
    assert live.take() == (("step 99999",), 0)


def test_what_nobody_takes_is_bounded_and_counted() -> None:
    live = LiveLines()
    for number in range(1_000_000):
        live.feed(b"%d\n" % number)
    lines, hidden = live.take()
    assert len(lines) + hidden == 1_000_000
    assert lines[-1] == "999999" and sum(map(len, lines)) <= MAX_WAITING
    assert not live and live.take() == ((), 0)
