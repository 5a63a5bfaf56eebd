"""The model zoo. Each function returns a fresh chaos.Network."""

from .paper import large, medium, small

MODELS = {"small": small, "medium": medium, "large": large}

__all__ = ["MODELS", "large", "medium", "small"]
