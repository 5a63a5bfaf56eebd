"""Many trainings: side by side with one core each (`train_many`, `search`, `Committee`), or one in the background
(`train_async`). Above chaos.api; callers use the names in `chaos`."""

from .background import Training, train_async
from .committee import Committee
from .search import Search, search
from .together import Results, train_many

__all__ = ["Committee", "Results", "Search", "Training", "search", "train_async", "train_many"]
