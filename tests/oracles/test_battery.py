"""The battery against Turnout, and the account of every difference from the servers it is compared with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import pytest

from .battery import CASES
from .case import Case
from .decisions import CLAIMS, DECISIONS
from .ledger import expectation, unclaimed
from .outcome import Outcome, differences, outcome
from .record import ORACLES, Outcomes, load, record
from .send import send
from .servers import ROOT, Running, serve
from .table import counts

PAGE = ROOT / "docs" / "decisions" / "oracle-differences.md"
#: What a refusal must not tell: a traceback, a file's place, a Python module or class of ours.
INTERNAL = re.compile(r"Traceback|File \"|\.py\b|/(work|root|home|tmp|usr)/|turnout\.|object at 0x|numpy")
BY_NAME = {case.name: case for case in CASES}


@lru_cache
def goldens(oracle: str) -> Outcomes:
    return load(oracle)


def expected(case: Case) -> Outcome:
    return expectation(case, goldens(case.follows)[case.name], DECISIONS)[0]


@pytest.fixture(scope="module")
def turnout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("turnout", tmp_path_factory.mktemp("turnout")) as server:
        yield server


@pytest.fixture(scope="module")
def turnout_linear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve("turnout-linear", tmp_path_factory.mktemp("turnout-linear")) as server:
        yield server


@pytest.mark.parametrize("name", [case.name for case in CASES if case.follows != "mlflow"])
def test_turnout_answers_as_decided(turnout: Running, name: str) -> None:
    _check(BY_NAME[name], turnout)


@pytest.mark.parametrize("name", [case.name for case in CASES if case.follows == "mlflow"])
def test_turnout_with_one_model_answers_as_decided(turnout_linear: Running, name: str) -> None:
    _check(BY_NAME[name], turnout_linear)


def test_nothing_broke_inside(turnout: Running, turnout_linear: Running) -> None:
    """Runs after the battery: the only tracebacks in the logs are of the model that raises."""
    for server in (turnout, turnout_linear):
        log = server.log.read_text()
        assert log.count("Traceback (most recent call last)") == log.count("\nValueError: the secret of the model\n")


def _check(case: Case, server: Running) -> None:
    answer = send(case, server)
    got = outcome(case, answer)

    assert not differences(expected(case), got), got.get("says", "")
    if "says" in got:
        assert not INTERNAL.search(answer.details + answer.body.decode())


def test_every_difference_from_an_oracle_is_a_decision() -> None:
    left = []
    for case in CASES:
        want = expected(case)
        for oracle in case.oracles:
            if oracle != case.follows:
                unexplained, _ = unclaimed(case, want, oracle, goldens(oracle)[case.name], CLAIMS)
                left += [f"{case.name} [{oracle}] {aspect}: {pair}" for aspect, pair in unexplained.items()]

    assert not left


def test_every_decision_makes_a_difference() -> None:
    used = {id(decision) for case in CASES for decision in _made(case)}

    assert [d for d in DECISIONS if id(d) not in used] == []


def _made(case: Case) -> list[object]:
    return list(expectation(case, goldens(case.follows)[case.name], DECISIONS)[1])


def test_every_claim_accounts_for_something() -> None:
    used: set[int] = set()
    for case in CASES:
        for oracle in case.oracles:
            if oracle != case.follows:
                _, claims = unclaimed(case, expected(case), oracle, goldens(oracle)[case.name], CLAIMS)
                used.update(map(id, claims))

    assert [claim for claim in CLAIMS if id(claim) not in used] == []


def test_every_decision_has_its_section_and_every_section_a_use() -> None:
    sections = re.findall(r"^### `([a-z0-9-]+)`$", PAGE.read_text(), re.MULTILINE)
    ids = {decision.id for decision in DECISIONS} | {claim.id for claim in CLAIMS}

    assert sorted(sections) == sorted(ids)


def test_the_page_on_compatibility_has_these_counts() -> None:
    text = (ROOT / "docs" / "reference" / "compatibility.md").read_text()

    for sent, same in counts().values():
        assert f"| {sent} | {same} |" in text


def test_case_names_are_unique_and_every_recording_is_of_a_case() -> None:
    assert len(BY_NAME) == len(CASES)
    for oracle in ORACLES:
        assert goldens(oracle).keys() == {case.name for case in CASES if oracle in case.oracles}


@pytest.mark.oracles
@pytest.mark.timeout(900)  # builds the oracle's environment where there is none
@pytest.mark.parametrize("oracle", ORACLES)
def test_the_live_oracle_still_does_what_was_recorded(oracle: str) -> None:
    live = record(oracle)
    changed = {name: differences(fact, live[name]) for name, fact in goldens(oracle).items()}

    assert {name: difference for name, difference in changed.items() if difference} == {}
