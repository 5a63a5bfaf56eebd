"""The documentation: the site builds without a warning, and every block of code in it is true.

The Python blocks of a page run one after the other in one namespace, on tiny data; of its shell blocks those lines that
start with `chaos ` run as commands. A block that cannot run says why in a comment before it, <!-- not run: REASON -->; one
that needs a package that may be missing, <!-- needs: PACKAGE -->, is skipped with the rest of its page where it is. A
block behind <!-- file: NAME --> is written to that file for those behind it. Files of the tests are shown as {.python}.
"""

import contextlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import chaos
from chaos.cli import COMMANDS, main

TREE = Path(__file__).resolve().parent.parent
DOCS = TREE / "docs"
if not (TREE / ".mkdocs.yml").is_file():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

PAGES = [TREE / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (not run|needs|file): ([^>]*?) -->\n\n?)?^```([\w{.}]*)\n(.*?)^```$", re.M | re.S)
FILE = "{.python}"
SHOWN = {"", FILE, "c", "text", "yaml", "toml", "json"}  # languages that are shown, not run


def name(page):
    return page.relative_to(TREE).as_posix()


def blocks(page):
    """(what its comment says, and of what; language; text; line) of each block of a page."""
    text = page.read_text()
    return [(*match.groups(), text.count("\n", 0, match.start(4))) for match in BLOCK.finditer(text)]


RUN = [page for page in PAGES if any(language in ("python", "bash") for *_, language, _, _ in blocks(page))]


@pytest.fixture
def data(tmp_path_factory, monkeypatch, digits):
    """A data folder with a small set in MNIST's form, and pictures in the current one."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "mnist").mkdir()
    for part, stem, size in zip(digits, ("train", "t10k"), (400, 100), strict=True):
        images = np.ascontiguousarray(chaos.data.resize(part.images[:size], 28)[:, 0])
        labels = part.labels[:size].astype(np.uint8)
        for array, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (folder / "mnist" / f"{stem}-{kind}-ubyte").write_bytes(header + array.tobytes())
    monkeypatch.setenv("CHAOS_DATA_DIR", str(folder))


@pytest.fixture
def pictures():
    """make(folder): pictures of two classes in it, which the tutorial takes as given."""

    def make(folder):
        image = pytest.importorskip("PIL.Image")
        rng = np.random.default_rng(0)
        y, x = np.mgrid[-1:1:40j, -1:1:40j]
        for kind in ("circles", "crosses"):
            (folder / "pictures" / kind).mkdir(parents=True)
            for i in range(30):
                u, v = x - rng.uniform(-0.2, 0.2), y - rng.uniform(-0.2, 0.2)
                line = abs(np.hypot(u, v) - 0.6) if kind == "circles" else np.minimum(abs(u - v), abs(u + v))
                image.fromarray((255 * (line < 0.15)).astype(np.uint8)).save(folder / "pictures" / kind / f"{i}.png")

    return make


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_not_run_has_a_reason(page):
    """And no block is of a language that is neither run nor known to be shown only."""
    for comment, about, language, text, line in blocks(page):
        assert language in {"python", "bash", *SHOWN}, f"{name(page)}:{line}: {language}"
        if comment == "not run":
            assert language in ("python", "bash") and len(about.split()) > 3, f"{name(page)}:{line}: {about}"
        if language == FILE:
            assert re.fullmatch(r'--8<-- "tests/[^"]+"\n', text), f"{name(page)}:{line}: {text}"
    comments = re.findall(r"<!-- (?:not run|needs|file):", page.read_text())
    assert len(comments) == sum(bool(each[0]) for each in blocks(page)), (
        f"{name(page)}: a comment is not right before a block"
    )


@pytest.mark.parametrize("page", RUN, ids=name)
def test_blocks_run(page, data, pictures, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    if "pictures/" in page.read_text():
        pictures(tmp_path)
    space = {"__name__": "__page__"}
    for comment, about, language, text, line in blocks(page):
        if comment == "not run":
            continue
        if comment == "file":
            Path(about).write_text(text)
            continue
        if comment == "needs" and not importlib.util.find_spec(about):
            pytest.skip(f"{name(page)} needs {about} from line {line} on")
        if language == "python":
            code = compile("\n" * line + text, str(page), "exec", flags=0, dont_inherit=True)
            exec(code, space)
        elif language == "bash":
            for command in re.sub(r"\\\n", "", text).splitlines():
                run(command, capfd, f"{name(page)}:{line}")
    plt = sys.modules.get("matplotlib.pyplot")
    assert plt is None or not plt.get_fignums()


def run(command, capfd, where):
    """Runs a line of a shell block; only those that start with `chaos` are."""
    words = shlex.split(command, comments=True)
    if not words or words[0] != "chaos":
        return
    with warnings.catch_warnings():
        code = main([*words[1:], *(["--quiet"] if words[1] in ("train", "simulate") else [])])
    told = capfd.readouterr()
    # doctor looks at the machine, which may have its faults
    assert code == 0 or (words[1] == "doctor" and code == 1), f"{where}: {command}\n{told.out[-2000:]}{told.err[-2000:]}"


def test_a_wrong_block_is_found(tmp_path, capfd):
    """The checks above can fail."""
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: no -->\n\n```python\n1\n```\n\n```bash\nchaos nothing\n```\n")
    (first, second) = blocks(page)
    assert first[:3] == ("not run", "no", "python") and first[4] == 3 and second[2:4] == ("bash", "chaos nothing\n")
    with pytest.raises(AssertionError, match="nothing"):
        run("chaos nothing", capfd, "here")


def test_links_of_the_readme_lead_somewhere():
    for file in (TREE / "README.md", TREE / ".github/CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", file.read_text()):
            assert target.startswith("https://") or (file.parent / target).exists(), f"{file.name}: {target}"


def test_what_judges_say_is_what_they_said():
    """The counts of the README and of the reference are those of scripts/judges.py."""
    counts = json.loads((DOCS / "judges.json").read_text())["counts"]
    passed = [row["passed"] for row in counts.values()]
    assert not any(row.get("failed") for row in counts.values())
    cases, light, step, small, modules = passed
    text = " ".join((TREE / "README.md").read_text().split())
    told = f"{cases} of ONNX's backend cases pass, {small} of its small models, all {light} light ones, {modules} of"
    assert light == step and told in text
    table = re.findall(r"^\| .* \| (\d+) \| (\d+) \| (\d+) \|$", (DOCS / "reference/interop.md").read_text(), re.M)
    wanted = [(row["passed"], row.get("skipped", 0), row.get("failed", 0)) for row in counts.values()]
    assert [tuple(map(int, row)) for row in table[: len(wanted)]] == wanted


def test_promises_are_those_of_the_script():
    """Once more: scripts/promises_page.py > docs/explanation/promises.md. The tests that it names are there."""
    script = TREE / "scripts/promises_page.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    page = (DOCS / "explanation/promises.md").read_text()
    assert page == done.stdout
    tests = {name: (TREE / f"tests/{name}.py").read_text() for name in re.findall(r"tests/(test_\w+)\.py", page)}
    planted = re.findall(r"tests/(test_\w+)\.py -k (\w+)", page)
    assert len(tests) > 20 and len(planted) > 10
    for name, words in planted:
        assert re.search(rf"^def test_\w*{words}", tests[name], re.M), f"{name}: {words}"


def test_the_readme_is_short():
    assert len((TREE / "README.md").read_text().splitlines()) < 130


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built from the tree with the installed package."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        with contextlib.suppress(ModuleNotFoundError):
            if importlib.util.find_spec(package):
                continue
        pytest.skip(f"{package} is not installed: pip install 'chaos-sgd[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", ".mkdocs.yml", "--site-dir", str(folder)],
        cwd=TREE,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_the_site_fetches_nothing(site):
    """No font, script, style or picture from elsewhere."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*?src=[\"']?([^\"'\s>]+)", text)
        loaded += [tag for tag in re.findall(r"<link[^>]*>", text) if "https:" in tag and "canonical" not in tag]
        assert not [each for each in loaded if re.match(r"(https?:)?//", each) or each.startswith("<link")], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:|@import", style.read_text()), style


def test_all_public_names_have_a_place_in_the_reference(site):
    text = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    places = set(re.findall(r'id="(chaos\.[\w.]+)"', text))
    missing = []
    for each in chaos.__all__:
        what = getattr(chaos, each)
        if inspect.isclass(what) or inspect.isfunction(what):
            if not {f"{what.__module__}.{what.__qualname__}", f"chaos.{each}"} & places:
                missing.append(each)
    assert not missing


def test_every_kind_is_in_the_reference(site):
    from chaos.losses import LOSSES
    from chaos.sync import STRATEGIES
    from chaos.updates import SCHEDULES, UPDATES

    for page, table in {
        "losses": set(LOSSES) - {"score"},
        "strategies": set(STRATEGIES),
        "updates": {*UPDATES, *SCHEDULES},
    }.items():
        text = (site / f"reference/{page}.html").read_text()
        assert not {kind for kind in table if f"<code>{kind}</code>" not in text}, page
    commands = (DOCS / "reference/command-line.md").read_text()
    assert not {command for command in COMMANDS if f"`chaos {command}" not in commands}
    text = (site / "reference/models.html").read_text()
    assert not {model for model in chaos.models.MODELS if f'.{model}"' not in text}
