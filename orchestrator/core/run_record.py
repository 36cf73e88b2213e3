"""run.json: what ran, where, and how it ended. The file is read back when a run is compared again."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict, Field, field_validator

from aclcmp.orchestrator.core.redaction import redact, redact_words

SCHEMA = 1


class RankState(str, Enum):
    """How a rank ended. A rank with exit code 0 is `finished`."""

    FINISHED = "finished"
    FAILED = "failed"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    """Ended by us because another rank failed, or because the user interrupted."""
    LOST = "lost"
    """Its host or its actor died."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RankRecord(_Model):
    """One rank: where it ran and how it ended. Times are seconds since the epoch."""

    rank: int
    local_rank: int
    host: str
    ip: str
    node_id: str
    devices: tuple[str, ...]
    """Device ids granted to this rank on its node; empty on CPU."""
    state: RankState
    exit_code: int | None
    """None when unknown (lost); 128 + n when signal n ended it."""
    started: float
    finished: float


class Failure(_Model):
    """The first thing that went wrong in a run, by time."""

    rank: int | None
    """None when no single rank is to blame (an interrupt)."""
    what: str
    """One line for people: e.g. "rank 3 (host a) exited with code 1"."""
    last_lines: tuple[str, ...] = ()
    """The last lines of that rank's log."""


class VersionedRecord(BaseModel):
    """Fields that every version of run.json has."""

    schema_version: int = Field(alias="schema")


class RunRecord(_Model):
    """The content of run.json. Secrets in its command line and variables are hidden however it is made or read."""

    schema_version: int = Field(alias="schema", default=SCHEMA)
    run_id: str
    command: tuple[str, ...]
    cwd: str
    launcher: str
    device: str
    visibility: str
    cluster: str
    """"local Ray" or the address that was joined."""
    started: float
    finished: float
    versions: dict[str, str]
    environment: dict[str, str]
    """By allow-list. What is secret by its name never gets here; what is so by its value is hidden."""
    ranks: tuple[RankRecord, ...]
    labels: str = ""
    """Regular expression of `--labels`; empty: all labels were recorded."""
    tasks: str = ""
    """Ranges of `--tasks`; empty: all tasks were recorded."""
    capture: str = "full"
    inputs: bool = False
    """Whether the inputs of watched modules were recorded too."""
    golden: str = ""
    """The run whose golden values were put into the actual side (`--local`, `--inject`); empty: none were."""
    inject: tuple[str, ...] = ()
    """The labels that golden's values replaced; empty with `golden`: all (`--local`)."""
    low_level: tuple[str, ...] = ()
    """What the launcher prepared for the library's dumps, in sentences; empty without `--low-level`."""
    stopped: str = ""
    """Why the ranks were stopped though nothing failed (`--stop-at`); empty: they ended by themselves."""
    failure: Failure | None = None

    @property
    def hosts(self) -> dict[int, str]:
        """The host of each rank."""
        return {rank.rank: rank.host for rank in self.ranks}

    @field_validator("command")
    @classmethod
    def _hide_in_command(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        return redact_words(command)

    @field_validator("environment")
    @classmethod
    def _hide_in_environment(cls, environment: dict[str, str]) -> dict[str, str]:
        return {name: redact(value) for name, value in environment.items()}


def has_ended(record: RunRecord) -> bool:
    """Return whether the end of a run was recorded: while it runs, and if its driver is killed, ranks are lost."""
    return record.failure is not None or all(rank.state is not RankState.LOST for rank in record.ranks)


def has_failure(record: RunRecord | None) -> bool:
    """Return whether anything went wrong while the ranks ran. Ranks that were stopped on purpose are no failure."""
    if record is None:
        return False
    fine = (RankState.FINISHED, RankState.STOPPED) if record.stopped else (RankState.FINISHED,)
    return record.failure is not None or any(rank.state not in fine for rank in record.ranks)
