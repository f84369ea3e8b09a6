"""Texts that are not quite JSON, and JSON that is not quite a request."""

from __future__ import annotations

import json

from ..case import Case, http
from .bodies import SIMPLE, identity_path, simple, simple_text

_GOOD = json.dumps(simple())


def _fp(data: str, datatype: str = "FP64") -> str:
    count = data.count(",") + 1
    return f'{{"inputs":[{{"name":"INPUT0","datatype":"{datatype}","shape":[1,{count}],"data":[{data}]}}]}}'


_TEXTS: dict[str, str | bytes] = {
    "only a brace": "{",
    "cut in the middle": _GOOD[: len(_GOOD) // 2],
    "cut before the end": _GOOD[:-1],
    "a comma at the end of a list": simple_text("15]", "15,]"),
    "a comma at the end of an object": _GOOD[:-1] + ",}",
    "a missing comma": simple_text("0, 1, 2", "0 1 2"),
    "single quotes": _GOOD.replace('"', "'"),
    "bare words": simple_text('"INPUT0"', "INPUT0"),
    "a comment": "/* hello */" + _GOOD,
    "text after the end": _GOOD + " x",
    "a second object after the end": _GOOD + _GOOD,
    "a byte order mark": "\ufeff" + _GOOD,
    "utf-16": _GOOD.encode("utf-16"),
    "latin-1 in a string": simple_text('"inputs"', '"id": "\u00e9", "inputs"').encode("latin-1"),
    "a lone surrogate": simple_text('"inputs"', '"id": "\\ud800", "inputs"'),
    "a control character in a string": simple_text('"inputs"', '"id": "a\nb", "inputs"'),
    "a nul at the end": _GOOD.encode() + b"\0",
    "nothing but nul": b"\0\0\0\0",
    "white space around": "\r\n\t " + _GOOD + " \r\n",
    "only white space": "  \n ",
    "null": "null",
    "a list": "[]",
    "a list of the request": "[" + _GOOD + "]",
    "a number": "3",
    "a string": '"inputs"',
    "a boolean": "true",
    "an empty object": "{}",
    "form fields": "inputs=1",
    "binary rubbish": bytes(range(256)),
    "leading zeros": simple_text("[0, 1, 2", "[0, 01, 2"),
    "a plus sign": simple_text("[0, 1, 2", "[0, +1, 2"),
    "a hexadecimal number": simple_text("[0, 1, 2", "[0, 0x1, 2"),
    "a dot without digits": simple_text("[0, 1, 2", "[0, 1., 2"),
    "a whole number with an exponent": simple_text("[0, 1, 2", "[0, 1e0, 2"),
    "member inputs twice": '{"inputs": [], ' + _GOOD[1:],
    "member data twice": simple_text('"data"', '"data": [1], "data"'),
    "escaped member names": simple_text('"inputs"', '"\\u0069nputs"'),
    "deep nesting in an unknown member": simple_text('"inputs"', '"x": ' + "[" * 200 + "]" * 200 + ', "inputs"'),
    "very deep nesting": "[" * 100_000,
    "very deep data": simple_text("[0, 1, 2", "[" * 5000 + "0, 1, 2"),
}

_NUMBERS: dict[str, str] = {
    "NaN": "NaN, 1.0",
    "Infinity": "Infinity, -Infinity",
    "nan in small letters": "nan",
    "Inf": "Inf",
    "a number beyond a double": "1e400",
    "a number below a double": "1e-400",
    "many digits": "0.1000000000000000055511151231257827021181583404541015625",
    "a hundred digits": "1" * 100,
}

CASES: tuple[Case, ...] = (
    http("json: empty body", "POST", SIMPLE),
    *(http(f"json: {name}", "POST", SIMPLE, text) for name, text in _TEXTS.items()),
    *(http(f"numbers: {name}", "POST", identity_path("FP64"), _fp(text)) for name, text in _NUMBERS.items()),
    http("numbers: NaN for FP32", "POST", identity_path("FP32"), _fp("NaN, Infinity, -Infinity", "FP32")),
    http("numbers: NaN for INT32", "POST", identity_path("INT32"), _fp("NaN", "INT32")),
    http("numbers: Infinity for INT64", "POST", identity_path("INT64"), _fp("Infinity", "INT64")),
    http("content type: none", "POST", SIMPLE, _GOOD, headers=[("Content-Type", "")]),
    http("content type: text", "POST", SIMPLE, _GOOD, headers=[("Content-Type", "text/plain")]),
    http("content type: octet stream", "POST", SIMPLE, _GOOD, headers=[("Content-Type", "application/octet-stream")]),
    http("content type: form", "POST", SIMPLE, _GOOD, headers=[("Content-Type", "application/x-www-form-urlencoded")]),
    http("content type: with a character set", "POST", SIMPLE, _GOOD,
         headers=[("Content-Type", "application/json; charset=utf-8")]),
    http("accept: json", "POST", SIMPLE, _GOOD, headers=[("Accept", "application/json")]),
    http("accept: html only", "POST", SIMPLE, _GOOD, headers=[("Accept", "text/html")]),
)  # fmt: skip
