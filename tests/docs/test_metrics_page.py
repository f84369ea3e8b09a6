"""The page of metrics names every metric with its type, labels and meaning, and every field of the access log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from turnout.core.errors import Code
from turnout.monitoring.access_log import AccessLog
from turnout.monitoring.families import FAMILIES, STAGES, Family
from turnout.monitoring.log_file import LogFile
from turnout.monitoring.record import RequestRecord

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
ROWS = {
    cells[0].strip("`"): cells[1:]
    for cells in ([cell.strip() for cell in line.strip("|\n").split("|")] for line in PAGE.splitlines())
    if cells[0].startswith("`turnout_")
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_metric_has_its_row(family: Family) -> None:
    kind, labels, meaning = ROWS[family.name]
    assert kind == family.kind.value
    assert re.findall(r"`(\w+)`", labels) == list(family.labels)
    assert meaning == family.help


def test_no_row_is_of_a_metric_that_went_away() -> None:
    assert set(ROWS) == set(FAMILIES)


def test_queries_use_names_and_labels_there_are() -> None:
    queries = PAGE.split("```promql")[1].split("```")[0]
    names = set(re.findall(r"turnout_\w+", queries))
    known = {f"{name}{suffix}" for name in FAMILIES for suffix in ("", "_bucket", "_sum", "_count")}
    assert names
    assert names <= known


def test_stages_are_named() -> None:
    for stage in STAGES:
        assert f"`{stage}`" in PAGE


def test_every_field_of_the_access_log_has_its_row(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AccessLog(LogFile(str(path)), successes=1)
    times = (0.0, 0.0, 0.0, 0.0, 0.0)
    for _ in range(2):
        log.request(RequestRecord("m", "1", "v2", Code.OK, 1, *times, 1, "id", "peer", 1, 1))
    log.close()
    table = PAGE.split("| field |")[1]
    for line in path.read_bytes().splitlines():
        for field in json.loads(line):
            assert f"`{field}`" in table, f"{field} is not on the page"
