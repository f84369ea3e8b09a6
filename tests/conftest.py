"""Settings of the whole suite."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from hypothesis import HealthCheck, settings

# On a shared machine one example may take long without a fault, so time is no reason to fail; in CI a failure must
# be the same one when it is run again.
settings.register_profile("turnout", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("turnout"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "turnout")

# What is fetched and built, and the sockets of the servers, never touch the user's own; short, for a socket's path is.
if "TURNOUT_HOME" not in os.environ:
    os.environ["TURNOUT_HOME"] = tempfile.mkdtemp(prefix="turnout-")
    atexit.register(shutil.rmtree, os.environ["TURNOUT_HOME"], ignore_errors=True)
