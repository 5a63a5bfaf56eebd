"""Packaging: extras, recipes, workflows and the version agree with each other and with the tree."""

import re
import tomllib
from pathlib import Path

import pytest

import chaos

TREE = Path(__file__).resolve().parent.parent
if not (TREE / "setup.py").is_file() or not (TREE / ".github").is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)
yaml = pytest.importorskip("yaml")

PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
FOR_DEVELOPERS = {"all", "docs", "test", "dev"}
PACKAGING = TREE / "scripts/packaging"


def own(requirements):
    """The extras of this package that a list of requirements asks for."""
    found = [re.fullmatch(r"chaos-sgd\[([\w,]+)\]", each) for each in requirements]
    return {name for match in found if match for name in match[1].split(",")}


def test_all_is_all():
    assert own(EXTRAS["all"]) == set(EXTRAS) - FOR_DEVELOPERS
    assert {"mpi", "sklearn", "torch", "onnx", "plot", "data", "all"} <= set(EXTRAS)


def test_tests_install_every_extra_but_the_large_ones():
    assert own(EXTRAS["test"]) == set(EXTRAS) - FOR_DEVELOPERS - {"torch", "track"} | {"docs"}


def test_messages_name_extras_that_exist():
    files = [*(TREE / "chaos").rglob("*.py"), *(TREE / "docs").rglob("*.md"), TREE / "README.md"]
    named = {}
    for file in files:
        text = file.read_text()
        assert not re.search(r"\bchaos\[[a-z]", text), f"{file}: the distribution is called chaos-sgd"
        named |= {name: file for names in re.findall(r"chaos-sgd\[([\w,]+)\]", text) for name in names.split(",")}
    assert named and set(named) <= set(EXTRAS), {name: str(named[name]) for name in set(named) - set(EXTRAS)}


def test_the_version_is_one():
    recipe = yaml.safe_load((PACKAGING / "conda/recipe.yaml").read_text())
    citation = yaml.safe_load((TREE / ".github/CITATION.cff").read_text())
    assert recipe["context"]["version"] == citation["version"] == chaos.__version__


def test_the_recipe_has_the_dependencies_of_the_package():
    recipe = yaml.safe_load((PACKAGING / "conda/recipe.yaml").read_text())
    spell = {each.replace(" ", "") for each in recipe["requirements"]["run"]}
    assert spell == {*PROJECT["project"]["dependencies"], f"python{PROJECT['project']['requires-python']}"}
    assert {each.replace(" ", "") for each in recipe["requirements"]["host"]} >= set(PROJECT["build-system"]["requires"])
    assert (PACKAGING / "conda" / recipe["source"]["path"]).resolve() == TREE


def test_the_image_copies_what_is_there():
    lines = (PACKAGING / "Dockerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert {"pyproject.toml", "setup.py", "chaos", "cext", "README.md", "LICENSE"} <= copied
    assert all((TREE / name).exists() for name in copied)
    (extras,) = re.findall(r"^ARG EXTRAS=([\w,]+)$", "\n".join(lines), re.M)
    assert set(extras.split(",")) <= set(EXTRAS)


def test_workflows_run_what_is_here():
    ci = yaml.safe_load((TREE / ".github/workflows/ci.yml").read_text())
    runs = [step.get("run", "") for job in ci["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in runs and (TREE / ".ci/run").is_file()
    (site,) = [line for line in runs if "mkdocs build --strict" in line]
    (config,) = re.findall(r"--config-file (\S+)", site)
    assert (TREE / config).is_file()


def test_wheels_are_tested_with_files_that_exist():
    settings = PROJECT["tool"]["cibuildwheel"]
    files = re.findall(r"\{project\}/(\S+)", settings["test-command"])
    assert len(files) > 2 and all((TREE / name).is_file() for name in files)
    # under --strict-config an option of a plugin that is missing is an error
    plugins = {name for name in ("timeout",) if name in PROJECT["tool"]["pytest"]["ini_options"]}
    assert all(any(each.startswith(f"pytest-{name}") for each in settings["test-requires"]) for name in plugins)
    versions = re.findall(r":: 3\.(\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert settings["build"][0] == f"cp31{{{','.join(str(int(v) - 10) for v in versions)}}}-*"


def test_issue_forms_are_forms():
    for file in (TREE / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(file.read_text())
        assert file.stem == "config" or {"name", "description", "body"} <= set(form), file
