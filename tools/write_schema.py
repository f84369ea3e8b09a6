"""Writes the JSON Schema of `turnout.yaml` where editors and readers find it: docs/reference/turnout.schema.json."""

from __future__ import annotations

import json
from pathlib import Path

from turnout.deploy.schema import schema

PATH = Path(__file__).parents[1] / "docs" / "reference" / "turnout.schema.json"


def main() -> None:
    """Writes the file anew."""
    PATH.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
