"""What ranks hold of golden's weights, as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from aclcmp.labeling.layout import Layout


class WeightFault(str, Enum):
    """Kinds of what is not as it should be about a weight."""

    ORDER = "order"
    """Rows of other parameters of its layer, or of its own parts in another order."""
    LAYER = "layer"
    """Rows of another layer."""
    SLICE = "slice"
    """Rows of the right parameter that another rank or place should hold."""
    UNKNOWN = "unknown"
    """Rows that are not golden's."""
    UNHELD = "unheld"
    """Golden's rows that no rank holds."""
    UNCHECKED = "unchecked"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class WeightFinding:
    """What is not as it should be about one parameter, or the same about several layers' parameters."""

    kind: WeightFault
    parameter: str
    """Name of the first on the actual side; of UNHELD that of golden."""
    others: tuple[str, ...]
    """Names of the others of which it holds."""
    ranks: tuple[int, ...]
    """Ranks that hold it; empty for UNHELD."""
    words: str
    """One line, without the ranks."""
    labels: tuple[str, ...]
    """Names of labels that the weight explains: the outputs of its modules."""
    wrong: bool
    """Whether it is wrong. What is not golden's in all layers and ranks may have been changed on purpose
    while it was loaded: it is wrong if a label of its module is."""
    by_labels: bool = False
    """Whether it is wrong only because a label of its module is, which another policy may judge otherwise."""


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Golden's rows that one parameter, or that of each layer, holds on some ranks."""

    parameter: str
    """Its name; numbers of layers are folded, as in "model.layers.{0-29}.mlp.gate_up_proj.weight"."""
    ranks: tuple[int, ...]
    words: str
    """E.g. "q_proj[192:384], k_proj[64:128], v_proj[64:128]"."""


@dataclass(frozen=True, slots=True)
class WeightedTensor:
    """The output or the input of an actual module, as far as the rows of its weight tell."""

    label: str
    """The id of its label."""
    layout: Layout | None = None
    """None where the weights do not tell it."""
    size: int = 0
    """Columns that it has on each rank, if the layout is its own: what is gathered later has more."""
    summand: bool = False
    """Whether ranks cut the columns of the weight: then it is a summand, or the sum where the module reduces."""


@dataclass(frozen=True, slots=True)
class Partners:
    """Labels that are the same numbers, by the weights: of one side one, of the other one or several, side by side."""

    golden: tuple[str, ...]
    actual: tuple[WeightedTensor, ...]

    @property
    def actual_ids(self) -> tuple[str, ...]:
        """The ids of the actual labels."""
        return tuple(each.label for each in self.actual)

    @property
    def is_joined(self) -> bool:
        """Whether several labels are one."""
        return len(self.golden) + len(self.actual) > 2


@dataclass(frozen=True, slots=True)
class WeightReport:
    """What the ranks hold of golden's weights."""

    parameters: int
    """How many parameters of the actual side there are, counted once over the ranks."""
    known: int
    """How many of them are golden's on all ranks, and nothing is wrong with them."""
    ranks: tuple[int, ...]
    findings: tuple[WeightFinding, ...]
    """In golden's order, those that are wrong first."""
    held: tuple[HeldRows, ...]

    @property
    def wrong(self) -> tuple[WeightFinding, ...]:
        """The findings that are reasons for exit code 1."""
        return tuple(each for each in self.findings if each.wrong)
