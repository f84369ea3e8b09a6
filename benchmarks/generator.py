"""Builds and runs the load generator of `load/`."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from hpack import huffman_constants

from benchmarks.places import HERE, LOAD_CORE, WORK

Measured = dict[str, Any]


def build() -> Path:
    """Compiles the generator with gcc where its sources have changed; the path of the program."""
    sources = sorted((HERE / "load").glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    program = WORK / f"load-{digest}"
    if program.exists():
        return program
    WORK.mkdir(parents=True, exist_ok=True)
    codes = zip(huffman_constants.REQUEST_CODES, huffman_constants.REQUEST_CODES_LENGTH, strict=True)
    (WORK / "huffman.inc").write_text("".join(f"{{0x{code:x}, {bits}}},\n" for code, bits in codes))
    compiled = [str(source) for source in sources if source.suffix == ".c"]
    flags = ["-O2", "-Wall", "-Wextra", "-std=gnu11", "-D_GNU_SOURCE", f"-I{WORK}"]
    subprocess.run(["gcc", *flags, *compiled, "-o", program, "-lm"], check=True)
    return program


def run(port: int, requests: Path, *, grpc: bool = False, **options: float | str) -> Measured:
    """One run, alone on its core. Options are those of the program: `connections=64`, `give_up=0.1` ..."""
    command = ["taskset", "-c", str(LOAD_CORE), str(build()), "--port", str(port), "--requests", str(requests)]
    if grpc:
        command += ["--protocol", "grpc"]
    for name, value in options.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    measured: Measured = json.loads(done.stdout)
    return measured
