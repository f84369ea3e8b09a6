"""Rules send a cohort to a version: the first one of which all conditions hold, before any bucket is looked at.

A regular expression is chosen by the operator and its text by the caller. It is refused where a text could make it go
through too many possibilities, and never sees a long one, so no caller can hold a router up with it.
"""

from __future__ import annotations

import importlib
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from turnout.core.errors import InvalidInput
from turnout.core.messages import InferRequest
from turnout.core.signature import Signature
from turnout.graph.request_value import Read, as_text, read

#: The longest text that a regular expression is tried on, and the longest expression, in characters.
MAX_TEXT = 256
#: In how many ways an expression may go through a text of `MAX_TEXT` characters: two repetitions, or a few choices.
MAX_WAYS = 2 * (MAX_TEXT + 1) ** 2
_EXAMPLE = "rules: [{when: {header: {x-cohort: beta}}, to: v8}]"


class MatchPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What a value must be; all that is said must hold. `regex` fits the whole value, `above` and `below` exclude."""

    prefix: str | None = None
    suffix: str | None = None
    regex: str | None = None
    exists: bool | None = None
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in self.__struct_fields__):
            raise InvalidInput("a condition that says nothing", expected=", ".join(self.__struct_fields__))
        if self.exists is False and any(
            getattr(self, name) is not None for name in self.__struct_fields__ if name != "exists"
        ):
            raise InvalidInput("a value that is not there cannot be anything else", field="exists", got="false")
        if self.regex is not None:
            compiled(self.regex)


Match = str | int | float | bool | MatchPolicy


class WhenPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Conditions by the name of what they look at; all must hold. An input is that of the request's first row."""

    header: Mapping[str, Match] = {}
    cookie: Mapping[str, Match] = {}
    query: Mapping[str, Match] = {}
    input: Mapping[str, Match] = {}

    def __post_init__(self) -> None:
        if not any(getattr(self, kind) for kind in self.__struct_fields__):
            raise InvalidInput("a rule without a condition", field="when", expected="at least one", example=_EXAMPLE)


class RulePolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Requests of which all of `when` holds go to the version `to`."""

    when: WhenPolicy
    to: str


class Rule:
    """A rule as it is tried on each request. `str(rule)` says what it wants."""

    __slots__ = ("_conditions", "_text", "to")

    def __init__(self, policy: RulePolicy, signature: Signature | None = None) -> None:
        """Raises InvalidInput for a column that the signature has not."""
        self.to = policy.to
        conditions: list[tuple[Read, Callable[[str | None], bool]]] = []
        words: list[str] = []
        for kind in policy.when.__struct_fields__:
            for name, match in getattr(policy.when, kind).items():
                conditions.append((read("column" if kind == "input" else kind, name, signature), matcher(match)))
                words.append(f"{kind} {name} {_said(match)}")
        self._conditions = conditions
        self._text = " and ".join(words)

    def __str__(self) -> str:
        return self._text

    def holds(self, request: InferRequest) -> bool:
        """Whether all conditions hold for the request."""
        for found, matches in self._conditions:  # noqa: SIM110  a generator costs more than the loop
            if not matches(found(request)):
                return False
        return True


def first_rule(rules: Sequence[Rule], request: InferRequest) -> Rule | None:
    """The first rule that holds."""
    for rule in rules:
        if rule.holds(request):
            return rule
    return None


def matcher(match: Match) -> Callable[[str | None], bool]:
    """Whether a value, None where there is none, is what was asked for."""
    if not isinstance(match, MatchPolicy):
        wanted = as_text(match)
        number = float(match) if isinstance(match, int | float) and not isinstance(match, bool) else math.nan
        return lambda value: value is not None and (value == wanted or _number(value) == number)
    if match.exists is False:
        return lambda value: value is None
    tests: list[Callable[[str], Any]] = []
    if match.prefix is not None:
        prefix = match.prefix
        tests.append(lambda value: value.startswith(prefix))
    if match.suffix is not None:
        suffix = match.suffix
        tests.append(lambda value: value.endswith(suffix))
    if match.regex is not None:
        fullmatch = compiled(match.regex).fullmatch
        tests.append(lambda value: len(value) <= MAX_TEXT and fullmatch(value))
    if match.above is not None:
        above = match.above
        tests.append(lambda value: _number(value) > above)
    if match.below is not None:
        below = match.below
        tests.append(lambda value: _number(value) < below)
    return lambda value: value is not None and all(test(value) for test in tests)


def compiled(pattern: str) -> re.Pattern[str]:
    """The expression. Raises InvalidInput where it is none, or where a short text could keep it busy for long."""
    if len(pattern) > MAX_TEXT:
        raise InvalidInput("too long", field="regex", expected=f"at most {MAX_TEXT} characters", got=str(len(pattern)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what means something else in a later Python
            found = re.compile(pattern, re.ASCII)
            ways = _ways(importlib.import_module("re._parser").parse(pattern, re.ASCII))
    except (re.error, OverflowError, RecursionError, Warning) as problem:
        raise InvalidInput("not a regular expression", field="regex", got=f"{pattern!r}: {problem}") from None
    if ways > MAX_WAYS:
        raise InvalidInput(
            "a text could keep this expression busy for too long",
            field="regex",
            expected="at most two repetitions without an upper bound, none inside another, and no look-around",
            got=repr(pattern),
            example="regex: '(eu|us)-[0-9]+'",
        )
    return found


def _ways(parsed: Any) -> float:
    """An upper bound for the ways in which an expression can go through a text of `MAX_TEXT` characters."""
    ways = 1.0
    for kind, argument in parsed:
        name = str(kind)
        if name in {"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT", "RANGE", "CATEGORY"}:
            continue
        if name == "BRANCH":
            ways *= sum(_ways(branch) for branch in argument[1])
        elif name == "SUBPATTERN":
            ways *= _ways(argument[-1])
        elif name in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            ways *= _repeated(_ways(argument[2]), int(argument[0]), min(int(argument[1]), MAX_TEXT))
        else:  # what looks around, back or at conditions
            return math.inf
        if ways > MAX_WAYS:
            return math.inf
    return ways


def _repeated(once: float, least: int, most: int) -> float:
    if once <= 1.0:
        return max(1.0, most - least + 1.0)
    return math.inf if most > 32 else sum(once**times for times in range(least, most + 1))


def _number(value: str) -> float:
    """NaN, which is neither above nor below nor equal to anything, where the text is no number."""
    try:
        return float(value) if len(value) <= MAX_TEXT else math.nan
    except ValueError:
        return math.nan


def _said(match: Match) -> str:
    if not isinstance(match, MatchPolicy):
        return f"is {as_text(match)!r}"
    if match.exists is False:
        return "is not there"
    said = [
        f"{word} {value if isinstance(value, float) else repr(value)}"
        for name, word in (
            ("prefix", "begins with"),
            ("suffix", "ends with"),
            ("regex", "fits"),
            ("above", "is above"),
            ("below", "is below"),
        )
        if (value := getattr(match, name)) is not None
    ]
    return " and ".join(said) or "is there"
