"""Rules: every condition, alone and together, and expressions that no text can keep busy."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graph.callers import asked
from turnout.core.errors import InvalidInput
from turnout.core.tensors import bytes_array
from turnout.graph.rules import Match, MatchPolicy, Rule, RulePolicy, compiled, first_rule, matcher


def rule(when: object, to: str = "v8") -> Rule:
    return Rule(msgspec.convert({"when": when, "to": to}, RulePolicy))


@pytest.mark.parametrize(
    ("match", "fits", "fits_not"),
    [
        ("beta", ["beta"], ["Beta", "beta ", None]),
        ("7", ["7"], ["7.0", "8", None]),
        (7, ["7", "7.0", "7e0"], ["8", "x", None, "nan"]),
        (0.5, ["0.5", ".50"], ["0.51", None]),
        (True, ["true"], ["True", "1", None]),
        (MatchPolicy(prefix="eu-"), ["eu-", "eu-west"], ["us-eu-", None]),
        (MatchPolicy(suffix="-test"), ["a-test"], ["a-tests", None]),
        (MatchPolicy(prefix="a", suffix="z"), ["az", "abcz"], ["ab", "bz", None]),
        (MatchPolicy(regex="(eu|us)-[0-9]+"), ["eu-1", "us-22"], ["eu-", "xeu-1", "eu-1x", None]),
        (MatchPolicy(exists=True), ["", "x"], [None]),
        (MatchPolicy(exists=False), [None], ["", "x"]),
        (MatchPolicy(above=5), ["5.1", "inf"], ["5", "4", "x", "nan", None]),
        (MatchPolicy(below=5), ["4.9", "-inf"], ["5", "x", "nan", None]),
        (MatchPolicy(above=1, below=3), ["2"], ["1", "3", None]),
        (MatchPolicy(regex="[a-z]*"), ["a" * 256], ["a" * 257]),
    ],
)
def test_conditions(match: Match, fits: list[str | None], fits_not: list[str | None]) -> None:
    matches = matcher(match)
    assert [value for value in fits if not matches(value)] == []
    assert [value for value in fits_not if matches(value)] == []


def test_all_conditions_of_a_rule_must_hold_and_the_first_rule_wins() -> None:
    both = rule({"header": {"X-Cohort": "beta"}, "input": {"amount": {"above": 100}}}, "v8")
    either = rule({"header": {"x-cohort": {"exists": True}}}, "v9")
    rules = [both, either]
    rich, poor = ({"amount": np.array([value])} for value in (200.0, 50.0))
    assert first_rule(rules, asked(header={"x-cohort": "beta"}, inputs=rich)) is both
    assert first_rule(rules, asked(header={"x-cohort": "beta"}, inputs=poor)) is either
    assert first_rule(rules, asked(inputs=rich)) is None
    assert str(both) == "header X-Cohort is 'beta' and input amount is above 100.0"


@pytest.mark.parametrize(
    ("when", "request_"),
    [
        ({"cookie": {"group": "b"}}, asked(cookie={"group": "b"})),
        ({"query": {"try": 1}}, asked(query={"try": "1"})),
        ({"input": {"country": "DE"}}, asked(inputs={"country": bytes_array(["DE", "FR"], (2,))})),
        ({"input": {"n": 3}}, asked(inputs={"n": np.array([[3]])})),
        ({"input": {"flag": True}}, asked(inputs={"flag": np.array([True])})),
        ({"header": {"x-region": {"prefix": "eu", "regex": "[a-z]{2}-[a-z]+"}}}, asked(header={"x-region": "eu-west"})),
    ],
)
def test_every_place_a_value_comes_from(when: object, request_: object) -> None:
    assert rule(when).holds(request_)  # type: ignore[arg-type]
    assert not rule(when).holds(asked(inputs={"z": np.array([0])}))


@pytest.mark.parametrize(
    "said",
    [
        {"when": {}, "to": "v8"},
        {"when": {"header": {}}, "to": "v8"},
        {"when": {"header": {"a": {}}}, "to": "v8"},
        {"when": {"header": {"a": {"exists": False, "prefix": "b"}}}, "to": "v8"},
        {"when": {"header": {"a": {"regex": "("}}}, "to": "v8"},
        {"when": {"header": {"a": {"regex": "a" * 257}}}, "to": "v8"},
    ],
)
def test_a_rule_that_says_nothing_or_nonsense_is_refused(said: object) -> None:
    with pytest.raises(InvalidInput):
        msgspec.convert(said, RulePolicy)


@pytest.mark.parametrize(
    "said", [{"when": {"heder": {"a": "b"}}, "to": "v8"}, {"when": {"header": {"a": {"like": "b"}}}, "to": "v8"}, {}]
)
def test_unknown_words_are_refused(said: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(said, RulePolicy)


EVIL = [
    "(a+)+b",
    "(a*)*b",
    "(a|a)*b",
    "(a|ab|b)*c",
    "(.*)(.*)(.*)b",
    "a*a*a*b",
    "(a{1,200}){1,200}b",
    "(a|a)" * 40 + "b",
    "(a?){60}b",
    r"(a)\1*",
    "(?=a+)b",
    "(?<!a)b",
    "(x+x+)+y",
]


@pytest.mark.parametrize("pattern", EVIL)
def test_expressions_that_could_run_away_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="regex"):
        compiled(pattern)


def quick(pattern: str) -> None:
    """No text keeps an accepted expression busy: 20 of them take less than a generous second each."""
    for text in ("a" * 256, "ab" * 128, "a" * 255 + "!", "0" * 256, "aaaa-" * 51, "x" * 256):
        begun = time.process_time()
        compiled(pattern).fullmatch(text)
        assert time.process_time() - begun < 1.0, pattern


@pytest.mark.parametrize(
    "pattern", ["a*a*b", ".*a.*b", "(ab|a)[ab]*[ab]*c", "(a|b)(a|b)(a|b)a*b", "[a-z]+-[0-9]{2,4}", "(?i)beta|alpha-.*"]
)
def test_ordinary_expressions_are_taken_and_quick(pattern: str) -> None:
    quick(pattern)


@given(st.text(alphabet="ab|()*+?.{1,3}[]", min_size=1, max_size=24))
def test_whatever_is_accepted_is_quick(pattern: str) -> None:
    try:
        compiled(pattern)
    except InvalidInput:
        return
    quick(pattern)
