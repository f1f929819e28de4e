"""What the site has besides the pages of this folder: README, the packages' own pages, the API, commands, notebooks.

Links into the repository are turned to the pages made of their targets; where there is none, the path is named instead.
"""

from __future__ import annotations

import ast
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "metadarts"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
RENAMED = {"README.md": "index.md", "CHANGELOG.md": "changes.md"}
"""Files of the repository that are pages, and the pages' names; packages' READMEs are concepts/PACKAGE.md."""


def _pages() -> dict[str, str]:
    """Path in the repository -> page."""
    concepts = {
        readme: f"concepts/{'-'.join(Path(readme).parts[1:-1])}.md"
        for readme in (path.relative_to(ROOT).as_posix() for path in sorted(PACKAGE.rglob("README.md")))
    }
    books = sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))
    return RENAMED | concepts | {f"notebooks/{name}.ipynb": f"notebooks/{name}.md" for name in books}


def _public(package: Path) -> list[str]:
    """The classes and functions of a package: those imported `as` themselves, and its own."""
    tree, names = ast.parse((package / "__init__.py").read_text(encoding="utf-8")), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names if alias.asname == alias.name]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            names.append(node.name)
    return sorted({name for name in names if not name.isupper()}, key=str.lower)


def _api() -> dict[str, str]:
    """Page -> its text, one for each package that offers names."""
    found = {}
    for package in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        module = f"metadarts.{package.name}"
        if names := _public(package):
            blocks = "\n\n".join(f"::: {module}.{name}" for name in names)
            found[f"api/{package.name}.md"] = f"# {module}\n\n{blocks}\n"
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation."""
    pages = {
        "Concepts": [page for page in _pages().values() if page.startswith("concepts/")],
        "Python": list(_api()),
        "Notebooks": [page for page in _pages().values() if page.startswith("notebooks/")],
    }

    def filled(entry: Any) -> Any:
        if isinstance(entry, list):
            return [filled(part) for part in entry]
        if isinstance(entry, dict):
            return {title: pages.get(title, filled(value)) for title, value in entry.items()}
        return entry

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for source, page in _pages().items():
        if source.endswith(".ipynb"):
            for name, content in _notebook(ROOT / source):
                files.append(File.generated(config, posixpath.join("notebooks", name), content=content))
        else:
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=_relinked(text, source, page)))
    for page, text in _api().items():
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "commands.md", content=_commands()))
    return files


def _notebook(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """The page of a notebook, and the pictures of its outputs."""
    names = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    text, resources = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4), names)
    source, page = f"notebooks/{path.name}", f"notebooks/{path.stem}.md"
    yield Path(page).name, _relinked(text, source, page)
    yield from resources.get("outputs", {}).items()


def _commands() -> str:
    words = [sys.executable, "-m", "typer", "metadarts.cli.main", "utils", "docs", "--name", "metadarts"]
    text = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    first = dict(re.findall(r"^#+ `metadarts ([^`]+)`\n\n(.+)$", text, re.M))
    parts = re.split(r"^(?=#+ `metadarts)", text, flags=re.M)
    return "".join(_with_whole_sentences(part, first) for part in parts)


def _with_whole_sentences(part: str, first: dict[str, str]) -> str:
    """Typer cuts the sentence that it lists for a command off after a few words."""
    group = re.match(r"#+ `metadarts ?([^`]*)`", part)
    before = f"{group[1]} " if group and group[1] else ""

    def whole(line: re.Match[str]) -> str:
        told = first.get(before + line[1])
        return line[0] if told is None else f"* `{line[1]}`: {told}"

    return re.sub(r"^\* `([^`]+)`: .*$", whole, part, flags=re.M)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the pages of this folder that lead out of it."""
    if page.file.generated_by:
        return markdown
    return _relinked(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def _relinked(text: str, source: str, page: str) -> str:
    """``text`` of the file ``source`` of the repository, as ``page``."""
    pages, here = _pages(), posixpath.dirname(source)

    def turned(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        if re.match(r"[a-z]+:|#|data:", target):
            return match.group(0)
        path, _, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(here, path))
        to = pages.get(place)
        if to is None and place.startswith("docs/"):
            to = place.removeprefix("docs/")
        if to is None and mark:  # a picture of a notebook's own outputs
            return match.group(0)
        if to is None:
            return f"{words} (`{place}`)" if place not in words else f"`{place}`"
        relative = posixpath.relpath(to, posixpath.dirname(page) or ".")
        return f"{mark}[{words}]({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(turned, text)
