"""Words of verdicts: one vocabulary for each kind. docs/verdicts.md says when each holds."""

from __future__ import annotations

from typing import Literal, get_args

# Of a claim of the paper on our records.
ClaimWord = Literal["supported", "contradicted", "undecided", "not run"]
CLAIM_WORDS: tuple[ClaimWord, ...] = get_args(ClaimWord)
# Which way an undecided claim leans so far.
LEANS = {True: "as claimed", False: "the other way round"}

# Of a row against the row that it is compared with.
RowWord = Literal["better", "worse", "undecided", "too few seeds"]

# Of a number of the paper against ours.
NumberWord = Literal[
    "reproduced",
    "within seed noise",
    "not reproduced",
    "protocol differs",
    "too few seeds",
    "not run",
    "paper's number unknown",
]
# Those that come of the values, where the protocols agree.
ON_VALUES: tuple[NumberWord, ...] = ("reproduced", "within seed noise", "not reproduced")

# Of a metric on a row whose backbone may have learned from the same data.
LeakageWord = Literal["clear", "unknown", "shared"]
