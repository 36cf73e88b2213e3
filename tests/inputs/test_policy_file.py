"""Policy files: what they say, and what is wrong with them in one line."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.errors import FailOn, UsageError
from aclcmp.orchestrator.inputs.policy_file import read_policy
from aclcmp.orchestrator.judge.policy import Policy

WHOLE = """
fail_on = "own"
own_factor = 4

[limits.bfloat16]
warn = 0.02
fail = 0.1

[[label]]
pattern = "layers.*.attn"
dtype = "bfloat16"
level = "op"
warn = 0.05
fail = 0.3

[[allow]]
pattern = "head"
up_to = 0.5
ranks = [1, 3]
reason = "sampled"

[[ignore]]
pattern = "debug.**"

[floor.reference]
warn = 2
fail = 4

[jump]
on = false
"""


def read(text: str, folder: Path) -> Policy:
    path = folder / "policy.toml"
    path.write_text(text)
    return read_policy(path)


def test_everything_that_it_may_say(tmp_path: Path) -> None:
    policy = read(WHOLE, tmp_path)
    assert (policy.name, policy.fail_on, policy.own_factor) == ("policy.toml", FailOn.OWN, 4)
    assert policy.limits["bfloat16"] == (0.02, 0.1) and policy.limits["float32"] == Policy().limits["float32"]
    assert policy.floors[FloorSource.REFERENCE] == (2, 4) and FloorSource.PROFILE in policy.floors
    assert not policy.jump.on and policy.jump.factor == Policy().jump.factor
    assert policy.allow[0].ranks == frozenset({1, 3}) and policy.allow[0].up_to == 0.5
    key = LabelKey(0, "layers.3.attn", 0)
    scope = policy.rules[0].scope
    assert scope.holds(key, level_of(key.label, "", ""), "bfloat16")
    assert not scope.holds(key, level_of(key.label, "", ""), "float32")
    assert not scope.holds(key, level_of(key.label, "", "layer"), "bfloat16")
    table = policy.table()
    assert table["ignore.debug.**"] == "" and table["allow.head"] == "sampled" and table["bfloat16.fail"] == 0.1


def test_an_empty_one_is_the_default(tmp_path: Path) -> None:
    found, default = read("", tmp_path).table(), Policy().table()
    assert {**found, "name": ""} == {**default, "name": ""}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('fail_onn = "any"', "fail_onn is not known; did you mean fail_on?"),
        ('fail_on = "al"', "fail_on: input should be 'any', 'own' or 'drift'"),
        ("[limits.bfloat61]\nwarn = 1\nfail = 2", "did you mean bfloat16?"),
        ("[limits.float23]\nwarn = 1e-5", "limits.float23: 'float23' has no limits of its own; did you mean float32?"),
        ("[limits]\nfloat23 = {wran = 1}", "limits.float23: 'float23' has no limits of its own; did you mean float32?"),
        ("[limits.float32]\nwran = 1\nfail = 2", "limits.float32.wran is not known; did you mean warn?"),
        ("[limits]\nfloat32 = 3", "limits.float32: should be a table with warn, fail"),
        ("[floor.repaet]\nwarn = 1", "floor.repaet is not known; did you mean repeat?"),
        ('[[allow]]\npatern = "x"', "allow[1].patern is not known; did you mean pattern?"),
        ('fail_on = "onw"', "fail_on: input should be 'any', 'own' or 'drift'; did you mean own?"),
        ('[[allow]]\npattern = "x"\nlevel = "modle"', "did you mean model?"),
        ("[limits.int8]\nwarn = 1\nfail = 2", "'int8' has no limits of its own"),
        ("[limits.bfloat16]\nwarn = 3\nfail = 2", "limits.bfloat16: warn (3) is above fail (2)"),
        ('[[label]]\npatern = "x"\nwarn = 1\nfail = 2', "label[1].patern is not known; did you mean pattern?"),
        ('[[label]]\npattern = "x"\ndtype = "bflot16"\nwarn = 1\nfail = 2', "did you mean bfloat16?"),
        ('[[label]]\npattern = "x"\nlevel = "opp"\nwarn = 1\nfail = 2', "label[1].level: input should be 'op'"),
        ('[[label]]\npattern = "x"\nwarn = 1\nfail = nan', "label[1].fail: "),
        ('[[label]]\npattern = "x"\nwarn = 0\nfail = 1', "label[1].warn: input should be greater than 0"),
        ("[[allow]]", "allow[1].pattern: field required"),
        ('[[allow]]\npattern = "a"\nranks = [-1]', "allow[1].ranks[1]: "),
        ('[[ignore]]\npattern = "a"\nup_to = 1', "ignore[1].up_to is not known"),
        ('[[ignore]]\npattern = "[z-a]"', "is not a pattern"),
        ("[floor.referense]\nwarn = 1\nfail = 3", "floor.referense is not known; did you mean reference?"),
        ("[jump]\nfactor = 0.5", "jump.factor: "),
        ("allow = 3", "allow: input should be an array"),
        ("x = [", "Invalid value"),
        ("[limits.float32]\nwarn = true\nfail = true", "limits.float32.warn: input should be a valid number"),
        ('[[allow]]\npattern = "a"\nup_to = true', "allow[1].up_to: input should be a valid number"),
        ('[[allow]]\npattern = "a"\nranks = [true]', "allow[1].ranks[1]: input should be a valid integer"),
        ("own_factor = " + "9" * 5000, "4300 digits"),
        ("x = " + "[" * 100_000, "recursion"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read(text, tmp_path)
    assert told in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "policy.toml"))


def test_what_is_no_policy_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_policy(tmp_path / "absent.toml")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_policy(tmp_path / "bytes")
    with pytest.raises(UsageError, match="Is a directory"):
        read_policy(tmp_path)
