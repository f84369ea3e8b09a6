"""Run in a network namespace: an index on its loopback, and an environment built from it."""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
from pathlib import Path

from tests.environments.index import serving
from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.environment import IndexPolicy, Requirements
from turnout.deploy.environments.store import Environments

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def main(wheels: Path, root: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
    with serving(wheels) as index:
        store = Environments(root, IndexPolicy((index.url,), public=False))
        packages = store.ensure(Requirements(("scores",))).packages
        try:
            store.ensure(Requirements(("only-public",)))
            refused = ""
        except EnvironmentFailed as failure:
            refused = failure.message
        print(json.dumps({"packages": packages, "refused": refused, "port": index.server_address[1]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
