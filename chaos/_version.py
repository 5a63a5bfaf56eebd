"""The version number, once: pyproject.toml reads it at build time, the package later. Imports nothing."""

__version__ = "0.2.0"
