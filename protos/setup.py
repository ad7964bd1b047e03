"""Builds the generated modules into the wheel; nothing generated is kept in the repository."""

import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))


class Generated(Distribution):
    def has_pure_modules(self) -> bool:
        return True  # all modules are generated: setuptools sees none and would skip build_py


class Generate(build_py):
    def run(self) -> None:
        from generate import generate

        generate(Path(self.build_lib))


setup(distclass=Generated, cmdclass={"build_py": Generate})
