"""What Turnout is expected to answer, and who accounts for each difference between that and an oracle.

A `Decision` changes what the followed oracle did into what Turnout does. A `Claim` says why another oracle does
something else. Both carry the id of a section in docs/decisions/oracle-differences.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from .case import JSON_TYPE, Case
from .outcome import Outcome, differences

#: Aspect to value; None takes the aspect away.
Patch = Mapping[str, Any]
ANY = ("*",)


def refused(status: int = 400) -> Patch:
    """A refusal in the form {"error": "..."}."""
    return {"status": status, "type": JSON_TYPE, "body": "{error}"}


def refused_grpc(code: str = "INVALID_ARGUMENT") -> Patch:
    """A gRPC call that ends with that code."""
    return {"code": code}


def accepted(**body: Any) -> Patch:
    """An answer with that body, where the followed oracle refuses."""
    return {"status": 200, "type": JSON_TYPE, "body": body}


def _always(_fact: Outcome) -> bool:
    return True


@dataclass(frozen=True)
class Decision:
    """Turnout answers `expect` for these cases (names with `*`) where `when` holds for what the oracle did."""

    id: str
    cases: tuple[str, ...]
    expect: Patch
    when: Callable[[Outcome], bool] = _always
    follows: tuple[str, ...] = ("triton",)

    def applies(self, case: Case, fact: Outcome) -> bool:
        """Whether the decision speaks about this case."""
        return case.follows in self.follows and _named(case.name, self.cases) and self.when(fact)


@dataclass(frozen=True)
class Claim:
    """The decision accounts for differences in these aspects from this oracle; `want` and `got` narrow it."""

    id: str
    oracle: str
    aspect: str
    cases: tuple[str, ...] = ANY
    want: Any = None
    got: Any = None

    def covers(self, name: str, oracle: str, aspect: str, pair: tuple[Any, Any]) -> bool:
        """Whether this difference is the claimed one."""
        return (
            oracle == self.oracle
            and fnmatchcase(aspect, self.aspect)
            and _named(name, self.cases)
            and self.want in (None, pair[0])
            and self.got in (None, pair[1])
        )


def _named(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or ("*" in pattern and fnmatchcase(name, pattern)) for pattern in patterns)


def expectation(case: Case, followed: Outcome, decisions: Sequence[Decision]) -> tuple[Outcome, list[Decision]]:
    """What Turnout shall answer, and the decisions that made it differ from the followed oracle."""
    fact: Outcome = json.loads(json.dumps(followed))
    fact.pop("says", None)
    used = []
    for decision in decisions:
        if decision.applies(case, fact):
            changed = _patched(fact, decision.expect)
            if differences(fact, changed):
                used.append(decision)
            fact = changed
    return fact, used


def _patched(fact: Outcome, patch: Patch) -> Outcome:
    if "code" in patch or "status" in patch:
        return dict(patch)
    changed: Outcome = json.loads(json.dumps(fact))
    for aspect, value in patch.items():
        at: Any = changed
        *parents, last = aspect.split("/")
        for key in parents:
            at = at[key]
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    return changed


def unclaimed(
    case: Case, want: Outcome, oracle: str, got: Outcome, claims: Sequence[Claim]
) -> tuple[dict[str, Any], list[Claim]]:
    """The differences from an oracle that nobody accounts for, and the claims that account for the others."""
    left: dict[str, Any] = {}
    used = []
    for aspect, pair in differences(want, got).items():
        claim = next((claim for claim in claims if claim.covers(case.name, oracle, aspect, pair)), None)
        if claim is None:
            left[aspect] = pair
        else:
            used.append(claim)
    return left, used
