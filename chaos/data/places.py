"""Where data sets are looked for: the data directory, folders of the system, the cache; and what brings the missing ones.
Used by the data room; `cache_folder` by whoever keeps something for this user."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import DataError, DataNotFound
from .dataset import Dataset

SYSTEM = ("/usr/share/datasets",)  # of Debian's packages dataset-*

Paths = Mapping[str, str]


@dataclass(frozen=True)
class Form:
    """One of the ways in which a data set lies on a disk.

    Attributes
    ----------
    files : tuple of str
        Names of files that are all needed.
    read : callable
        (training set, test set) of {name: path}.
    zipped : bool
        Whether each may be there with ``.gz`` behind its name instead.
    inside : tuple of str
        Folders within the data set's own in which they may lie, beside itself.
    """

    files: tuple[str, ...]
    read: Callable[[Paths], tuple[Dataset, Dataset]]
    zipped: bool = False
    inside: tuple[str, ...] = ()

    def find(self, folder: str) -> dict[str, str]:
        """The files that are there as {name: path}, of the place that holds most of them; plain ones before ``.gz`` ones."""
        best: dict[str, str] = {}
        for place in (folder, *(os.path.join(folder, name) for name in self.inside)):
            found: dict[str, str] = {}
            for name in self.files:
                for ending in ("", ".gz") if self.zipped else ("",):
                    # A broken link or a directory of that name counts: reading it will say what is wrong.
                    if name not in found and os.path.lexists(os.path.join(place, name + ending)):
                        found[name] = os.path.join(place, name + ending)
            best = found if len(found) > len(best) else best
        return best


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Attributes
    ----------
    name : str
        In the cache.
    urls : tuple of str
        The same at several mirrors.
    most : int
        Bytes; what is larger is refused.
    checksum : str
        ``"sha256:..."`` of the uncompressed content, or ``"md5:..."`` of the file as it is sent, which is then kept so: what
        the authors of most sets publish.
    """

    name: str
    urls: tuple[str, ...]
    most: int
    checksum: str


@dataclass(frozen=True)
class Source:
    """A data set with a name.

    Attributes
    ----------
    name : str
    about : str
        A line for lists.
    hint : str
        What is to be put where, for the message that it is not there; without the name of the folder.
    forms : tuple of Form
        In order of preference.
    remotes : callable
        What can be downloaded: the files of the first form; nothing where no address is known.
    folders : tuple of str
        Its folder in a data directory, and in the cache; then other names under which other libraries keep it.
    system : tuple of str
        Its folder below those of `SYSTEM`.
    """

    name: str
    about: str
    hint: str
    forms: tuple[Form, ...]
    remotes: Callable[[], Sequence[Remote]]
    folders: tuple[str, ...]
    system: tuple[str, ...] = ()

    def load(self, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> tuple[Dataset, Dataset]:
        """The two sets from the first of: data directory, folders of the system, cache, mirrors.

        Parameters
        ----------
        data_dir : str or os.PathLike, optional
            Looked into first, at ``data_dir/NAME/``; ``$CHAOS_DATA_DIR`` unless given. Files there are trusted for what they
            show (they may be another set in this one's form) but not for their format.
        download : bool
            Whether files that are missing may be downloaded into the cache.

        Raises
        ------
        DataError
            A folder holds some of the files of a form but not all, or a file is damaged.
        DataNotFound
            Files are missing and could not be (or were not to be) downloaded.
        """
        looked = []
        for folder in self._places(data_dir):
            looked.append(folder)
            if found := self._in(folder):
                return found[0].read(found[1])
        cache = cache_folder(self.folders[0])
        looked.append(cache)
        form, paths = self._from_cache(cache, looked, download)
        return form.read(paths)

    def where(self, data_dir: str | os.PathLike[str] | None = None) -> str | None:
        """The folder from which `load` would take it without a download, None where there is none. Nothing is read."""
        for folder in (*self._places(data_dir), cache_folder(self.folders[0])):
            if any(len(form.find(folder)) == len(form.files) for form in self.forms):
                return folder
        return None

    def _places(self, data_dir: str | os.PathLike[str] | None) -> list[str]:
        """Folders in which it may lie before the cache; of several names for one thing those that are there."""
        base = os.environ.get("CHAOS_DATA_DIR") if data_dir is None else os.fspath(data_dir)
        found = []
        if base:
            own = [os.path.join(base, name) for name in self.folders]
            found += own[:1] + [folder for folder in own[1:] if os.path.isdir(folder)]
        return found + [folder for top in SYSTEM for name in self.system if os.path.isdir(folder := os.path.join(top, name))]

    def _in(self, folder: str) -> tuple[Form, dict[str, str]] | None:
        """The first form that is whole in a folder; DataError where there is only a part of one."""
        parts = [(form, form.find(folder)) for form in self.forms]
        for form, paths in parts:
            if len(paths) == len(form.files):
                return form, paths
        form, paths = max(parts, key=lambda part: len(part[1]))
        if not paths:
            return None
        missing = ", ".join(name for name in form.files if name not in paths)
        raise DataError(f"{folder}: holds part of {self.name} but not {missing}{' (plain or .gz)' if form.zipped else ''}")

    def _from_cache(self, folder: str, looked: list[str], download: bool) -> tuple[Form, dict[str, str]]:
        """What the cache holds, which is filled if need be; `looked` is for the message."""
        for form in self.forms:
            paths = form.find(folder)
            if len(paths) == len(form.files):
                return form, paths
        where = f"{self.name} is not on this machine (looked in {' and '.join(looked)})"
        hint = f"{self.hint} into $CHAOS_DATA_DIR/{self.folders[0]}/"
        remotes = self.remotes()
        if not remotes:
            raise DataNotFound(f"{where}, and there is no address from which it may be downloaded; {hint}")
        if not download:
            raise DataNotFound(f"{where} and downloading is switched off; {hint}")

        from .download import fetch

        form = self.forms[0]
        paths = form.find(folder)
        for remote in remotes:
            if remote.name in paths:
                continue
            try:
                paths[remote.name] = fetch(remote.urls, remote.most, remote.checksum, folder, remote.name)
            except DataNotFound as error:
                raise DataNotFound(f"{where} and could not be downloaded: {error}; {hint}") from None
        return form, form.find(folder)


def cache_folder(name: str) -> str:
    """A folder of that name in the user's cache for chaos: ``$XDG_CACHE_HOME/chaos``, with ``~/.cache`` if that is unset.

    Always an absolute path: where no home is known (as for a user of a container without an entry in
    ``/etc/passwd``), a folder of the user's own among the temporary files.
    """
    import platformdirs

    try:
        base = platformdirs.user_cache_dir("chaos")
    except RuntimeError:  # no home is known
        base = ""
    if not os.path.isabs(base):  # older platformdirs take a relative $XDG_CACHE_HOME as it is
        base = os.path.join(os.path.expanduser("~"), ".cache", "chaos")
    if not os.path.isabs(base):
        base = _temporary_folder()
    return os.path.join(base, name)


def _temporary_folder() -> str:
    """``/tmp/chaos-UID``, which must not be another's: what lies there is believed."""
    import tempfile

    folder = os.path.join(tempfile.gettempdir(), f"chaos-{os.getuid()}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        status = os.lstat(folder)
        if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
            raise DataNotFound(
                f"no home directory is known, and {folder} belongs to somebody else; set XDG_CACHE_HOME or CHAOS_DATA_DIR"
            ) from None
    except OSError:  # a message will name the folder when something is to be written into it
        pass
    return folder
