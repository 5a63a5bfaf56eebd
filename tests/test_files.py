"""Files that are kept: written whole or not at all, on any file system; one writer per directory; streams that are none."""

import contextlib
import errno
import io
import os
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest

import chaos
from chaos.formats import atomic
from chaos.formats.atomic import sweep, write_atomically
from chaos.formats.json_text import parse_json
from chaos.formats.lock import NAME, Lock
from chaos.streams import is_terminal, tell
from chaos.training import CONFIG, METRICS, MODEL

# ---- atomic writes ----


def calls_of(monkeypatch, *names):
    """Notes the calls of functions of os, in their order: (name, what the first argument is)."""
    found = []

    def kind(what):
        return (stat.S_ISDIR(os.fstat(what).st_mode) and "directory") or "file" if isinstance(what, int) else "path"

    def noted(name, call):
        def call_noted(first, *others, **named):
            found.append((name, kind(first)))
            return call(first, *others, **named)

        return call_noted

    for name in names:
        monkeypatch.setattr(os, name, noted(name, getattr(os, name)))
    return found


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls = calls_of(monkeypatch, "fsync", "replace")
    write_atomically(tmp_path / "file", b"content")
    assert calls == [("fsync", "file"), ("replace", "path"), ("fsync", "directory")]
    assert (tmp_path / "file").read_bytes() == b"content" and os.listdir(tmp_path) == ["file"]


def refuses(code, only=lambda *arguments: True, call=None):
    def refused(*arguments, **named):
        if only(*arguments):
            raise OSError(code, os.strerror(code))
        return call(*arguments, **named)

    return refused


def is_directory(handle):
    return stat.S_ISDIR(os.fstat(handle).st_mode)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF, errno.ENOTSUP])
def test_what_a_file_system_does_not_know_is_left_out(tmp_path, monkeypatch, code):
    (tmp_path / "file").write_bytes(b"before")
    monkeypatch.setattr(os, "chmod", refuses(errno.EPERM))
    monkeypatch.setattr(os, "fsync", refuses(code))
    write_atomically(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"after"


@pytest.mark.parametrize("code", sorted(atomic.LOST))
@pytest.mark.parametrize("which", ["file", "directory"])
def test_a_flush_that_has_lost_something_is_told(tmp_path, monkeypatch, code, which):
    (tmp_path / "file").write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", refuses(code, lambda handle: is_directory(handle) == (which == "directory"), os.fsync))
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        write_atomically(tmp_path / "file", b"after")
    assert caught.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == (b"before" if which == "file" else b"after")
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_may_not_be_read(tmp_path, monkeypatch):
    real = os.open
    monkeypatch.setattr(os, "open", refuses(errno.EACCES, lambda path, *_: os.path.isdir(path), real))
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_names_as_long_as_can_be(tmp_path):
    for name in ("n" * 255, "\u00e4" * 127, os.fsdecode(b"\xff" * 250)):
        write_atomically(tmp_path / name, b"content")
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()
    with pytest.raises(OSError, match="too long"):
        write_atomically(tmp_path / ("n" * 256), b"content")


def test_links_stay_and_modes_too(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_bytes(b"before")
    (tmp_path / "there/file").chmod(0o604)
    (tmp_path / "link").symlink_to("there/file")
    write_atomically(tmp_path / "link", b"after")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there/file").read_bytes() == b"after"
    assert stat.S_IMODE((tmp_path / "there/file").stat().st_mode) == 0o604
    (tmp_path / "to come").symlink_to("there/new")
    write_atomically(tmp_path / "to come", b"new")
    assert (tmp_path / "there/new").read_bytes() == b"new" and (tmp_path / "to come").is_symlink()


def test_a_new_file_has_the_mode_that_others_get(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_pipes_and_devices_are_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.warns(RuntimeWarning, match="pipe that nobody reads"):
        write_atomically(tmp_path / "pipe", b"lost")
    content = os.urandom(300_000)  # more than a pipe holds
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    handle = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)  # so that there is a reader for sure
    reader.start()
    while not found and reader.is_alive():
        write_atomically(tmp_path / "pipe", content)
        os.close(handle)
        reader.join()
    assert b"".join(found) == content
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    write_atomically("/dev/null", b"content")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_paths_that_are_none(tmp_path):
    with pytest.raises(OSError, match="must not be empty"):
        write_atomically("", b"")
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, b"")
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere/file", b"")


KILLED = """
import os, signal, sys
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from chaos.formats.atomic import write_atomically
write_atomically(sys.argv[1], b"content")
"""


def test_what_a_killed_process_leaves_is_swept(tmp_path):
    for name in ("file", "n" * 255):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path / name], check=False)
    (tmp_path / ".file.of.mine").write_bytes(b"")
    (tmp_path / ".other.12345678").write_bytes(b"")
    assert len(os.listdir(tmp_path)) == 4
    sweep(tmp_path, ["file", "n" * 255])
    assert sorted(os.listdir(tmp_path)) == [".file.of.mine", ".other.12345678"]


def test_deep_nesting_is_an_error_of_the_text():
    for text in ("[" * 100_000, b'{"a":' * 100_000, "[1", ""):
        with pytest.raises(ValueError):
            parse_json(text)
    assert parse_json(b'{"a": [1]}') == {"a": [1]}


# ---- one writer ----


HOLDER = """
import sys
from pathlib import Path
from chaos.formats.lock import Lock
assert Lock(Path(sys.argv[1])).take() is None
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_ends_with_its_owner(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout.readline() == "held\n"
        mine = Lock(tmp_path)
        assert mine.take() == {"process": owner.pid, "machine": os.uname().nodename}
        owner.kill()
        owner.wait()
        assert (tmp_path / NAME).exists() and mine.take() is None
    assert Lock(tmp_path).take()["process"] == os.getpid(), "also in one process"
    mine.release()
    assert not os.listdir(tmp_path)
    mine.release()
    again = Lock(tmp_path)
    assert again.take() is None
    again.release()


def test_a_lock_is_not_inherited(tmp_path):
    lock = Lock(tmp_path)
    assert lock.take() is None
    ready, end = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.close(end)
            os.read(ready, 1)  # until the parent has looked
        os._exit(0)
    os.close(ready)
    lock.release()
    other = Lock(tmp_path)
    assert other.take() is None, "the child, who lives, does not hold it"
    other.release()
    os.close(end)
    os.waitpid(child, 0)


def test_where_locks_are_unknown_nobody_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", refuses(errno.ENOLCK))
    one, other = Lock(tmp_path), Lock(tmp_path)
    assert one.take() is None and other.take() is None
    one.release()
    other.release()


def little(**settings):
    data = chaos.data.Dataset(np.zeros((4, 1, 2, 2), np.uint8), [0, 1, 0, 1], classes=2)
    net = chaos.Network((1, 2, 2), [chaos.Flatten(), chaos.Linear(2)])
    return chaos.train(net, data, workers=1, **{"epochs": 1, "progress": False, **settings})


def test_a_second_run_is_refused_while_the_first_goes_on(tmp_path):
    refused = []

    class Second(chaos.Callback):
        def epoch_end(self, event, record):
            before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
            for resume in (False, True):
                with pytest.raises(chaos.CheckpointError, match=f"in use by process {os.getpid()} on ") as caught:
                    little(run_dir=tmp_path, resume=resume)
                refused.append(str(caught.value))
            assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    little(run_dir=tmp_path, callbacks=[Second()])
    assert len(refused) == 2 and str(tmp_path) in refused[0]
    assert sorted(os.listdir(tmp_path)) == sorted([MODEL, METRICS, CONFIG])
    assert len(little(run_dir=tmp_path, resume=True, epochs=2).history) == 2


def test_a_refused_or_failed_run_lets_go(tmp_path):
    little(run_dir=tmp_path)
    with pytest.raises(chaos.CheckpointError, match="already holds a run"):
        little(run_dir=tmp_path)

    class Fails(chaos.Callback):
        def epoch_end(self, event, record):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        little(run_dir=tmp_path, resume=True, epochs=2, callbacks=[Fails()])
    assert not (tmp_path / NAME).exists()
    little(run_dir=tmp_path, resume=True, epochs=3)


def test_an_empty_path_is_no_directory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='run_dir must be the path of a directory, not ""'):
        little(run_dir="")
    from chaos import cli

    for words in (
        ["train", "small", "--data", "digits", "--run-dir", ""],
        ["train", "", "--data", "digits"],
        ["plot", ""],
        ["predict", "model", ""],
        ["replay", "file", "--save", ""],
    ):
        assert cli.main(words) == 2
        assert 'a value is needed, not ""' in capsys.readouterr().err
    assert not os.listdir(tmp_path)


# ---- streams ----


class OnlyWrites:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [OnlyWrites(), closed(), None, object()], ids=["only writes", "closed", "none", "object"])
def test_training_needs_no_standard_error(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_terminal(stream)
    run = little(progress=True, epochs=2)
    assert len(run.history) == 2
    if isinstance(stream, OnlyWrites):
        assert stream.text.count("epoch") == 2


def test_what_cannot_be_encoded_is_told_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, "ascii", errors="strict"))
    assert tell("l\u00e4ufe \udcff")
    assert raw.getvalue() == b"l\\xe4ufe \\udcff\n"


@pytest.mark.parametrize("name, encoding", [(b"run\xff", "utf-8:strict"), ("l\u00e4ufe".encode(), "ascii:strict")])
def test_a_path_that_cannot_be_printed_costs_no_training(tmp_path, name, encoding):
    folder = os.path.join(os.fsencode(tmp_path), name)
    words = ["train", "small", "--data", "digits", "--subset", "20", "--epochs", "1", "--quiet", "--run-dir", folder]
    environ = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-m", "chaos", *words], env=environ, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"\\" in done.stdout.splitlines()[-1] and os.path.exists(os.path.join(folder, MODEL.encode()))
