"""`turnout schema`: what turnout.yaml may say, as a JSON Schema, for editors."""

from __future__ import annotations

import argparse
import json
from typing import Any

_SCHEMA = (
    "Prints the JSON Schema of turnout.yaml, with which an editor completes its keys and marks mistakes. What names "
    "refer to, and sums, are checked by `turnout plan` only."
)


def words(verbs: Any) -> None:
    """Adds the verb."""
    verbs.add_parser(
        "schema", help="print the JSON Schema of turnout.yaml", description=_SCHEMA, allow_abbrev=False
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Prints it; returns the exit code."""
    from turnout.deploy.schema import schema  # brings every policy, which the words do not need

    del arguments
    print(json.dumps(schema(), indent=1, ensure_ascii=False))
    return 0
