"""`python benchmarks/run.py` is `python -m benchmarks`, wherever it is called from."""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
runpy.run_module("benchmarks", run_name="__main__", alter_sys=True)
