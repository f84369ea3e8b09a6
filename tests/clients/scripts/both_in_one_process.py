"""Imports KServe's messages and Turnout's in one process, in the order given; prints "fine" as JSON.

Usage: both_in_one_process.py FOLDER_OF_TURNOUT (kserve turnout | turnout kserve)
"""

from __future__ import annotations

import importlib
import json
import sys

MODULES = {"kserve": "kserve.protocol.grpc.grpc_predict_v2_pb2", "turnout": "turnout.protocols.grpc_messages"}

sys.path.insert(0, sys.argv[1])
loaded = {name: importlib.import_module(MODULES[name]) for name in sys.argv[2:]}
ours = loaded["turnout"].message_class("inference.ModelReadyRequest")(name="m", version="2")
theirs = loaded["kserve"].ModelReadyRequest.FromString(ours.SerializeToString())
if (theirs.name, theirs.version) != ("m", "2") or type(theirs) is type(ours):
    raise SystemExit("the two are mixed up")
sys.stdout.write(json.dumps("fine"))
