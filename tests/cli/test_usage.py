"""Wrong usage says what to type, with the nearest option first."""

import pytest

from tests.cli.conftest import Command, assert_one_line

BEHIND = "write the command behind --: aclcmp run "


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "python", "x.py"], f"{BEHIND}-- python x.py"),
        (["run", "--ranks", "2", "python", "x.py", "--fast", "a b"], f"{BEHIND}--ranks 2 -- python x.py --fast 'a b'"),
        (["--ranks=2", "--strict", "torchrun", "x.py"], f"{BEHIND}--ranks=2 --strict -- torchrun x.py"),
        (["run"], "no command; give --exec"),
        (["--ranks", "2"], "no command; give --exec"),
        (["--ranks", "x"], "'--ranks'"),
        (["--exec", "a", "--device", "x"], "Invalid value for '--device': 'x' is not one of"),
        (["--lable", "x", "--exec", "true"], "no option --lable; did you mean --labels"),
        (["run", "--lable", "x", "python", "y"], "no option --lable; did you mean --labels"),
        (["report", "--htlm"], "no option --htlm; did you mean --html?"),
        (["report", "--xyzzy"], "no option --xyzzy; see aclcmp report -h"),
        (["--exec", "a", "--", "b"], "--exec gives the command, and so does what follows --"),
        (["run", "--"], "no command"),
        (["explain", "a", "b", "c"], "explain takes a run and one label"),
        *(([each], "there is no run in aclcmp-runs here; give RUN") for each in ("report", "verdict", "diff")),
        (["explain", "layers.0"], "there is no run in aclcmp-runs here; give RUN"),
        *(([each], "aclcmp-runs is no folder") for each in ("runs", "prune")),
        (["runs", "."], ". holds no run"),
    ],
)
def test_what_to_type(quick_aclcmp: Command, arguments: list[str], words: str) -> None:
    assert_one_line(quick_aclcmp(*arguments), words)
