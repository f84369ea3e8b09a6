"""Compiles the short way through the doors (`_lane.pyx`) where there is a C compiler.

Without one the package is complete all the same: pure Python, slower for small requests. TURNOUT_COMPILE=1 makes a
build that cannot compile fail, TURNOUT_COMPILE=0 compiles nothing. Why Cython: docs/decisions/compiled-lane.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SWITCH = "TURNOUT_COMPILE"
_SETUP = """
import sys
from setuptools import Extension, setup
name, source, target = sys.argv[1:]
extension = Extension(name, [source], extra_compile_args=["-O3", "-g0"])
setup(script_args=["-q", "build_ext", "--build-lib", target, "--build-temp", target + "/work"], ext_modules=[extension])
"""


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's configuration is of no type of ours
    """Puts each compiled module beside its source: in a wheel, or in the checkout of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises CalledProcessError where a module does not compile although TURNOUT_COMPILE=1 asks for it."""
        self._made = Path(tempfile.mkdtemp(prefix="turnout-compiled-"))
        wanted = os.environ.get(_SWITCH, "")
        root = Path(self.root, "src")
        if version == "editable":
            for source in root.rglob("*.pyx"):  # what an older source was compiled to fits no more
                _beside(source).unlink(missing_ok=True)
        if wanted == "0":
            return
        for source in sorted(root.rglob("*.pyx")):
            try:
                compiled = _compile(source, root, self._made)
            except (OSError, subprocess.CalledProcessError) as problem:
                if wanted == "1":
                    raise
                said = (getattr(problem, "stderr", None) or str(problem)).strip().splitlines()
                self.app.display_warning(
                    f"{source.name} is not compiled, Python will do its work: {said[-1] if said else ''}"
                )
                continue
            if version == "editable":
                new = Path(f"{_beside(source)}.new")
                shutil.copy2(compiled, new)
                new.replace(_beside(source))  # at once: a process that uses the old one keeps it
                continue
            build_data["force_include"][str(compiled)] = str(source.relative_to(root).parent / compiled.name)
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what was made on the way."""
        shutil.rmtree(self._made, ignore_errors=True)


def _beside(source: Path) -> Path:
    """Where this interpreter finds the compiled module of a checkout."""
    return source.with_name(source.stem + str(sysconfig.get_config_var("EXT_SUFFIX")))


def _compile(source: Path, root: Path, target: Path) -> Path:
    """The compiled module. Raises CalledProcessError with what the compiler said."""
    module = ".".join(source.relative_to(root).with_suffix("").parts)
    made = target / f"{module}.c"
    command = [
        sys.executable,
        "-m",
        "cython",
        "-3",
        "-I",
        str(root),
        "--module-name",
        module,
        "-o",
        str(made),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    arguments = [sys.executable, "-c", _SETUP, module, str(made), str(target)]
    subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=target)
    (found,) = target.glob(f"{module.replace('.', '/')}.*")
    return found
