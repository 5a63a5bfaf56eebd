"""What a missing package is answered with. For the files of this folder."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(package: str) -> Iterator[None]:
    """Within it, an import that fails for want of the package names what installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"this needs the package {package}: pip install 'chaos-sgd[{package}]'", name=package
        ) from None
