"""Compiles the .proto files of `turnout.protocols` into the descriptor set that ships with the package.

Run `python tools/compile_protos.py` after a change to a .proto file; a test compares the two. Needs grpcio-tools.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).resolve().parent.parent / "src"
PROTOCOLS = SOURCE / "turnout" / "protocols"
COMPILED = PROTOCOLS / "grpc_descriptors.binpb"


def compile_protos() -> bytes:
    """The serialized FileDescriptorSet of every .proto file, without comments and positions."""
    sources = sorted(str(path.relative_to(SOURCE)) for path in PROTOCOLS.glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.binpb"
        status = protoc.main(["protoc", f"--proto_path={SOURCE}", f"--descriptor_set_out={target}", *sources])
        if status != 0:
            raise SystemExit(f"protoc ended with status {status}")
        return target.read_bytes()


if __name__ == "__main__":
    compiled = compile_protos()
    COMPILED.write_bytes(compiled)
    sys.stdout.write(f"{COMPILED.relative_to(SOURCE.parent)}: {len(compiled)} bytes\n")
