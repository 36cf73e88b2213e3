"""The pairing rule against made-up runs whose truth is known: never the file of another execution without a word."""

from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.shard.dumped_tensor import NotDumped
from aclcmp.orchestrator.dumps.atb.executions import TICK, DumpFile, FileLabel, TensorMatch, match_labels

T = 1_700_000_000.0


def wanted(time: float, seq: int) -> FileLabel:
    return FileLabel(seq, 0, "a/x.bin", time, "model.py:1")


@given(data=st.data())
def test_own_execution_or_none_or_a_warning(data: st.DataObject) -> None:
    """Executions follow each other at 20 ms to 5 s, some are dumped, those before the first label have no label."""
    gaps = data.draw(st.lists(st.floats(0.02, 5.0), min_size=1, max_size=12))
    warm_ups = data.draw(st.integers(0, len(gaps) - 1))
    gaps = [max(gap, 0.2) if number < warm_ups else gap for number, gap in enumerate(gaps)]
    begins = [T + sum(gaps[:number]) for number in range(len(gaps))]
    labels = [wanted(begin, number) for number, begin in enumerate(begins)][warm_ups:]
    files = [
        DumpFile(str(number), "/", begin + gap * data.draw(st.floats(0.05, 0.7)), execution=number)
        for number, (begin, gap) in enumerate(zip(begins, gaps, strict=True))
        if data.draw(st.booleans())
    ]
    if not files:
        return
    found = match_labels(labels, data.draw(st.permutations(files)), lambda file: 1)
    there = {file.path for file in files}
    for label, answer in zip(labels, found, strict=True):
        if isinstance(answer, TensorMatch):
            late = answer.file.written - label.time
            assert answer.file.path == str(label.seq) or answer.warnings or -TICK < late < gaps[label.seq] + TICK
        elif len(files) != 1 and str(label.seq) in there:
            assert "cannot tell which" in answer.reason or gaps[label.seq - 1] < 0.2
    if len(files) == len(labels) and not warm_ups:
        assert [isinstance(answer, TensorMatch) and not answer.warnings for answer in found] == [True] * len(labels)


@given(
    labels=st.lists(st.floats(allow_nan=False), min_size=1, max_size=8),
    files=st.lists(
        st.tuples(st.floats(allow_nan=False), st.integers(-1, 3), st.none() | st.integers(0, 2)), min_size=1, max_size=8
    ),
    count=st.integers(1, 9),
)
def test_any_times_give_an_answer_for_each_label(
    labels: list[float], files: list[tuple[float, int, int | None]], count: int
) -> None:
    """Clocks that jump and files from nowhere."""
    chain = [wanted(time, seq) for seq, time in enumerate(labels)]
    dumped = [DumpFile(str(n), "/", written, number, task) for n, (written, number, task) in enumerate(files)]
    found = match_labels(chain, dumped, lambda file: count)
    assert len(found) == len(chain)
    for answer in found:
        if isinstance(answer, NotDumped):
            assert answer.reason and not answer.unreadable
        else:
            assert answer.file in dumped and -1 <= answer.index < count
    taken = [(answer.file.path, answer.index) for answer in found if isinstance(answer, TensorMatch)]
    assert len(taken) == len(set(taken))


def test_order_that_the_times_contradict_is_told() -> None:
    """A warm-up was dumped, the last execution was not: as many files as labels, but not theirs."""
    labels = [wanted(T + second, second) for second in range(3)]
    for seconds in ((-0.5, 0.5, 1.5), (1.5, 3.5, 0.5)):
        files = [DumpFile(str(number), "/", T + second, number) for number, second in enumerate(seconds)]
        for answer in match_labels(labels, files, lambda file: 1):
            assert isinstance(answer, TensorMatch) and "the file's time is not between" in answer.warnings[0]


def test_appended_file_that_is_older_than_some_labels_is_told() -> None:
    labels = [wanted(T + second, second) for second in range(3)]
    found = match_labels(labels, [DumpFile("x", "/", T + 1.5)], lambda file: 3)
    early = ("the file was written before the label was set",)
    assert [isinstance(answer, TensorMatch) and answer.warnings for answer in found] == [(), (), early]


def test_file_of_the_very_moment_of_a_label_is_its() -> None:
    """Labels at the same time leave the clock no room: a file of that time is theirs, not that of one before."""
    labels = [wanted(time, seq) for seq, time in enumerate((T, T + 1, T + 1))]
    files = [DumpFile(str(number), "/", T + second) for number, second in enumerate((0.5, 1.0))]
    one, two, three = match_labels(labels, files, lambda file: 1)
    assert isinstance(one, TensorMatch) and one.file == files[0]
    assert isinstance(two, NotDumped) and "that of label 2 " in two.reason
    assert isinstance(three, TensorMatch) and three.file == files[1]
    alone = match_labels(labels[1:], files[1:], lambda file: 1)
    assert isinstance(alone[0], NotDumped) and isinstance(alone[1], TensorMatch)


def test_label_without_a_next_one_is_told_nothing_of_successive_executions() -> None:
    files = [DumpFile(str(number), "/", T - 1 - number) for number in range(2)]
    (answer,) = match_labels([wanted(T, 0)], files, lambda file: 1)
    assert isinstance(answer, NotDumped) and "successive" not in answer.reason
