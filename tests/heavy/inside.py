"""Runs inside a framework's environment: the conformance suite and 1,000 rows, for every case that a maker kept.

Prints one line of JSON for each case: its name, and what does not hold ("" if all does).
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from keeping import arrays, cases, check

import turnout
from turnout.core.signature import Signature
from turnout.formats import LoadOptions
from turnout.testing.formats import Tolerance, check_format

FEW = 12


def run(folder: Path, case: dict[str, Any]) -> None:
    """Raises what does not hold."""
    path = folder / case["artifact"]
    rows, expected = arrays(folder, case, "rows"), arrays(folder, case, "expected")
    few = slice(case.get("few", FEW) if case.get("batched", True) else None)  # what mixes rows takes them together
    tolerance = Tolerance(*case["tolerance"])
    signature = Signature.from_json(case["signature"]) if case.get("signature") else None
    options = LoadOptions(trust_pickle=case.get("trust_pickle", False), signature=signature)
    model = check_format(
        path,
        format=case["format"],
        rows={name: array[few] for name, array in rows.items()},
        expected={name: array[few] for name, array in expected.items() if name not in case.get("json", ())},
        options=options,
        tolerance=Tolerance(*case["split"]),  # what is expected was answered for all rows in one batch
        split=Tolerance(*case["split"]),
        wrong_suffix=case.get("wrong_suffix"),
        damage=case.get("damage", True),
        essential=case.get("essential", ()),
    )
    assert model.signature.batched == case.get("batched", True), f"batched: {model.signature.batched}"
    if "inputs" in case:
        found = {spec.name: [spec.datatype, *spec.shape] for spec in model.signature.inputs}
        assert found == case["inputs"], f"inputs {found}"
    loaded = turnout.load(str(path), trust_pickle=options.trust_pickle, signature=signature)
    answer = loaded.predict(rows)
    for name, want in expected.items():
        assert len(want) == len(next(iter(rows.values())))
        check(case, name, answer[name], want, tolerance)
    if case.get("after"):  # a check in the framework's own words, such as how many threads it has
        exec(case["after"], {"model": model, "np": np})


def main(folder: Path) -> None:
    for case in cases(folder):
        began = time.monotonic()
        try:
            run(folder, case)
            problem = ""
        except Exception:
            problem = traceback.format_exc()
        print("CASE", json.dumps([case["name"], problem, round(time.monotonic() - began, 1)]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
