"""MLflow's scoring server: /invocations, /ping, /version."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from ..case import Case, http

_COLUMNS = ["a", "b", "c", "d"]
_ROWS = [[1.0, 2.0, 3.0, 4.0], [0.0, 0.5, -1.0, 2.0]]
_RECORDS = [dict(zip(_COLUMNS, row, strict=True)) for row in _ROWS]
_SPLIT = {"columns": _COLUMNS, "data": _ROWS}

_BODIES: dict[str, Any] = {
    "split": {"dataframe_split": _SPLIT},
    "split with an index": {"dataframe_split": _SPLIT | {"index": [5, 9]}},
    "split with an index too short": {"dataframe_split": _SPLIT | {"index": [5]}},
    "split without columns": {"dataframe_split": {"data": _ROWS}},
    "split without data": {"dataframe_split": {"columns": _COLUMNS}},
    "split in another order": {"dataframe_split": {"columns": _COLUMNS[::-1], "data": [row[::-1] for row in _ROWS]}},
    "split with a column too many": {
        "dataframe_split": {"columns": [*_COLUMNS, "e"], "data": [[*row, 9.0] for row in _ROWS]}
    },
    "split with a column missing": {"dataframe_split": {"columns": _COLUMNS[:3], "data": [row[:3] for row in _ROWS]}},
    "split with a column twice": {
        "dataframe_split": {"columns": [*_COLUMNS, "a"], "data": [[*row, 9.0] for row in _ROWS]}
    },
    "split with unknown columns": {"dataframe_split": {"columns": ["p", "q", "r", "s"], "data": _ROWS}},
    "split ragged": {"dataframe_split": {"columns": _COLUMNS, "data": [_ROWS[0], [1.0]]}},
    "split too wide": {"dataframe_split": {"columns": _COLUMNS, "data": [[*_ROWS[0], 5.0]]}},
    "split a list": {"dataframe_split": _ROWS},
    "split a string": {"dataframe_split": "abc"},
    "split null": {"dataframe_split": None},
    "split no rows": {"dataframe_split": {"columns": _COLUMNS, "data": []}},
    "split with a member too many": {"dataframe_split": _SPLIT | {"colour": "blue"}},
    "records": {"dataframe_records": _RECORDS},
    "one record": {"dataframe_records": _RECORDS[:1]},
    "records in another order": {"dataframe_records": [dict(reversed(record.items())) for record in _RECORDS]},
    "records with a column missing": {"dataframe_records": [{"a": 1.0, "b": 2.0, "c": 3.0}]},
    "records with a column too many": {"dataframe_records": [_RECORDS[0] | {"e": 1.0}]},
    "records, one short": {"dataframe_records": [_RECORDS[0], {"a": 1.0}]},
    "records an object": {"dataframe_records": _RECORDS[0]},
    "records of lists": {"dataframe_records": _ROWS},
    "records of numbers": {"dataframe_records": [1, 2]},
    "no records": {"dataframe_records": []},
    "records null": {"dataframe_records": None},
    "instances": {"instances": _ROWS},
    "instances by name": {"instances": _RECORDS},
    "instances ragged": {"instances": [_ROWS[0], [1.0]]},
    "instances empty": {"instances": []},
    "inputs": {"inputs": _ROWS},
    "inputs by column": {"inputs": {"a": [1.0, 0.0], "b": [2.0, 0.5], "c": [3.0, -1.0], "d": [4.0, 2.0]}},
    "inputs of different lengths": {"inputs": {"a": [1.0], "b": [2.0, 0.5], "c": [3.0], "d": [4.0]}},
    "two members": {"dataframe_split": _SPLIT, "instances": _ROWS},
    "unknown member beside": {"dataframe_split": _SPLIT, "colour": "blue"},
    "unknown member only": {"colour": "blue"},
    "an empty object": {},
    "params": {"dataframe_split": _SPLIT, "params": {"t": 1}},
    "params empty": {"dataframe_split": _SPLIT, "params": {}},
    "params a list": {"dataframe_split": _SPLIT, "params": [1]},
    "a list": _ROWS,
    "a number": 3,
    "whole numbers": {"dataframe_split": {"columns": _COLUMNS, "data": [[1, 2, 3, 4]]}},
    "numbers in strings": {"dataframe_split": {"columns": _COLUMNS, "data": [["1", "2", "3", "4"]]}},
    "words": {"dataframe_split": {"columns": _COLUMNS, "data": [["p", "q", "r", "s"]]}},
    "booleans": {"dataframe_split": {"columns": _COLUMNS, "data": [[True, False, True, False]]}},
    "null": {"dataframe_split": {"columns": _COLUMNS, "data": [[None, 2.0, 3.0, 4.0]]}},
}

_CSV = "a,b,c,d\n1.0,2.0,3.0,4.0\n0.0,0.5,-1.0,2.0\n"


def _parquet() -> bytes:
    sink = io.BytesIO()
    table = pa.table({name: [row[at] for row in _ROWS] for at, name in enumerate(_COLUMNS)})
    parquet.write_table(table, sink)
    return sink.getvalue()


def _mlflow(name: str, method: str, target: str, body: Any = b"", **more: Any) -> Case:
    return http(f"mlflow: {name}", method, target, body, oracles=("mlflow",), follows="mlflow", **more)


def _typed(name: str, content_type: str, body: Any) -> Case:
    return _mlflow(name, "POST", "/invocations", body, headers=[("Content-Type", content_type)])


CASES: tuple[Case, ...] = (
    _mlflow("ping", "GET", "/ping"),
    _mlflow("health", "GET", "/health"),
    _mlflow("version", "GET", "/version"),
    _mlflow("get invocations", "GET", "/invocations"),
    _mlflow("post ping", "POST", "/ping"),
    *(_mlflow(name, "POST", "/invocations", body) for name, body in _BODIES.items()),
    _mlflow("empty body", "POST", "/invocations", b"", headers=[("Content-Type", "application/json")]),
    _mlflow("broken json", "POST", "/invocations", '{"dataframe_split": '),
    _mlflow("nan", "POST", "/invocations", '{"instances": [NaN]}'),
    _typed("json with a character set", "application/json; charset=utf-8", {"dataframe_split": _SPLIT}),
    _typed("json with another character set", "application/json; charset=latin-1", {"dataframe_split": _SPLIT}),
    _typed("json with an old format name", "application/json; format=pandas-split", {"dataframe_split": _SPLIT}),
    _typed("csv", "text/csv", _CSV),
    _typed("csv with a character set", "text/csv; charset=utf-8", _CSV),
    _typed("csv in another order", "text/csv", "d,c,b,a\n4.0,3.0,2.0,1.0\n"),
    _typed("csv with a column missing", "text/csv", "a,b,c\n1.0,2.0,3.0\n"),
    _typed("csv with a column too many", "text/csv", "a,b,c,d,e\n1.0,2.0,3.0,4.0,5.0\n"),
    _typed("csv with words", "text/csv", "a,b,c,d\np,q,r,s\n"),
    _typed("csv with a hole", "text/csv", "a,b,c,d\n1.0,,3.0,4.0\n"),
    _typed("csv whole numbers", "text/csv", "a,b,c,d\n1,2,3,4\n"),
    _typed("csv quoted", "text/csv", '"a","b","c","d"\n"1.0","2.0","3.0","4.0"\n'),
    _typed("csv with CRLF", "text/csv", "a,b,c,d\r\n1.0,2.0,3.0,4.0\r\n"),
    _typed("csv only a head", "text/csv", "a,b,c,d\n"),
    _typed("csv empty", "text/csv", ""),
    _typed("csv ragged", "text/csv", "a,b,c,d\n1.0,2.0,3.0,4.0,5.0,6.0\n1.0\n"),
    _typed("csv broken utf-8", "text/csv", b"a,b,c,d\n\xff\xfe,2,3,4\n"),
    _typed("parquet", "application/vnd.apache.parquet", _parquet()),
    _typed("parquet that is not", "application/vnd.apache.parquet", _CSV),
    _typed("plain text", "text/plain", "hello"),
    _typed("no content type", "", {"dataframe_split": _SPLIT}),
    _typed("xml", "application/xml", "<a/>"),
)
