"""Builds the kernels' library into the package; all else is in pyproject.toml."""

import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

KERNELS = Path("orchestrator/compare/kernels")
build = runpy.run_path("labeling/shard/kernel_library.py")


class BuildLibrary(build_ext):
    """Build a plain shared library, which any Python loads; without a compiler it is built where it is needed."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return a name without the version of Python."""
        return fullname.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Build what is loaded, with the same flags as where it is needed."""
        compiler = build["find_compiler"]()
        if compiler is None:
            print("no C compiler: the comparison kernels are not built", file=sys.stderr)
            return
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        build["build_library"](target, compiler)


class PlatformWheel(bdist_wheel):
    """A wheel for every Python 3 of this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the parts of the wheel's name."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("aclcmp.orchestrator.compare.kernels.kernels", [f"{KERNELS}/kernels.c"], optional=True)],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
