"""The house keeps its own rules: rooms, sizes, docstrings, words that do not belong."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hullwright
import hullwright.flows.steps
from hullwright.flows.step import Step

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "hullwright"
MAX_LINES = 400
_UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|raise NotImplemented" + "Error")


def python_files() -> list[Path]:
    """Every Python file but schema revisions, which are as long as the schema."""
    found = [path for place in ("src", "tests", "benchmarks") for path in (ROOT / place).rglob("*.py")]
    return sorted(path for path in found if "versions" not in path.parts)


def all_steps() -> list[type[Step]]:
    """Every step class that the flows are made of."""
    found: list[type[Step]] = []
    for module in pkgutil.iter_modules(hullwright.flows.steps.__path__, "hullwright.flows.steps."):
        members = vars(importlib.import_module(module.name)).values()
        found += [it for it in members if inspect.isclass(it) and issubclass(it, Step) and it.__module__ == module.name and it.step_name]
    return found


def test_rooms_import_downwards_only() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_the_three_links_lead_into_the_rooms() -> None:
    for name in ("flows", "drivers", "persistence"):
        assert (ROOT / name).is_symlink()
        assert (ROOT / name).resolve() == SOURCE / name


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_for_and_is_not_too_long(path: Path) -> None:
    text = path.read_text()
    docstring = ast.get_docstring(ast.parse(text)) or ""
    if text.strip():
        assert docstring, "a module docstring is missing"
    if text.count("\n") > MAX_LINES:
        assert "lines" in docstring, f"over {MAX_LINES} lines, and the docstring gives no reason"
    assert not _UNFINISHED.search(text)


@pytest.mark.parametrize("step", all_steps(), ids=lambda step: step.step_name)
def test_a_step_says_how_it_is_undone_and_its_revert_takes_anything(step: type[Step]) -> None:
    lines = (inspect.getdoc(step) or "").strip().splitlines()
    last_paragraph = " ".join(lines[max((number for number, line in enumerate(lines) if not line), default=-1) + 1 :])
    assert last_paragraph.startswith("Reverts:")
    assert "revert" in step.__dict__
    assert any(it.kind == inspect.Parameter.VAR_KEYWORD for it in inspect.signature(step.revert).parameters.values())


def test_step_names_are_unique() -> None:
    names = [step.step_name for step in all_steps()]
    assert len(names) == len(set(names))
    assert len(names) >= 10


def documents() -> list[Path]:
    """What people read."""
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def links(path: Path) -> Iterator[str]:
    """Relative links and paths of the repository that a document names."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            yield str((path.parent / target.partition("#")[0]).resolve())
    for name in re.findall(r"`((?:src|docs|etc|tests|tools|benchmarks|flows|drivers|persistence)/[\w./@-]+)`", text):
        yield str(ROOT / name)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_points_to_is_there(path: Path) -> None:
    missing = [target for target in links(path) if not (Path(target).exists() or (SOURCE / Path(target).relative_to(ROOT)).exists())]
    assert missing == []


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


def test_the_changelog_has_this_version() -> None:
    version = re.search(r"^version = (.+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert version is not None
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{version[1]}]" in text
