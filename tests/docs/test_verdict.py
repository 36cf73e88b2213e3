"""docs/verdict.md: its policy file is one, and says what the defaults are."""

import re
from pathlib import Path

from aclcmp.orchestrator.inputs.policy_file import read_policy
from aclcmp.orchestrator.judge.policy import Policy

TEXT = (Path(__file__).parents[2] / "docs" / "verdict.md").read_text()


def test_the_policy_file_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[0])
    found, default = read_policy(tmp_path / "policy.toml"), Policy()
    assert (found.jump, found.own_factor, found.floors) == (default.jump, default.own_factor, default.floors)
    assert len(found.rules) == len(found.allow) == len(found.ignore) == 1


def test_the_table_of_the_page() -> None:
    told = dict(re.findall(r"^\| (float\d\d|bfloat16) \| (\S+ \| \S+) \|$", TEXT, re.MULTILINE))
    limits = {name: tuple(map(float, each.split(" | "))) for name, each in told.items()}
    assert limits == {name: each for name, each in Policy().limits.items() if not name.startswith("float8")}
