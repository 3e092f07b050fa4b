"""What the site has besides docs/: README as its first page, the command line's reference, source files, colours.

Links that lead out of docs/ are rewritten, so that the same Markdown reads on GitHub and in the site.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from leakbench.cli import app

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
"""file of the repository's root -> page of the site"""
_ORIGINS = {page: path for path, page in PAGES.items()}
_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([\w.]+)</code>")
COMMAND_LINE = "reference/command-line.md"
PALETTE = "assets/palette.css"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the root's pages, the command line's reference, the palette and the source files that pages link to."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    files.append(File.generated(config, COMMAND_LINE, content=command_line()))
    files.append(File.generated(config, PALETTE, content=palette()))
    sources = {
        path
        for file in files.documentation_pages()
        for link in _LINK.finditer(file.content_string)
        if (path := linked(file.src_uri, link[1])) and location(path).startswith("source/")
    }
    for path in sorted(sources):
        files.append(File.generated(config, location(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turns links between files of the repository into links between files of the site."""
    uri = page.file.src_uri
    if uri == "index.md":
        page.meta["hide"] = ["navigation"]  # of one entry

    def rewritten(link: re.Match[str]) -> str:
        path = linked(uri, link[1])
        if path is None:
            return link[0]
        return f"]({posixpath.relpath(location(path), posixpath.dirname(uri) or '.')}{link[2] or ''})"

    return _LINK.sub(rewritten, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turns Sphinx's roles in docstrings into links, where the name is in the reference."""
    package = re.search(r'<h[12] id="(leakbench[\w.]*)"', html)
    if package is None:
        return html

    def reference(role: re.Match[str]) -> str:
        name = role[1] if role[1].startswith("leakbench.") else f"{package[1]}.{role[1]}"
        return f'<autoref identifier="{name}" optional><code>{role[1].rpartition(".")[2]}</code></autoref>'

    return _ROLE.sub(reference, html)


def linked(page: str, target: str) -> str | None:
    """The file of the repository, as a path from its root, that a page of the site links to; None where none is."""
    origin = _ORIGINS.get(page, f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    return path if ":" not in target and (ROOT / path).is_file() else None


def location(path: str) -> str:
    """Where a file of the repository is in the site. Browsers show text files, and offer to save what ends in .py."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}.txt"


def palette() -> str:
    """The report's colours, light and dark, as variables of the theme's two schemes."""
    style = (ROOT / "reports" / "templates" / "report.css").read_text(encoding="utf-8")
    rules = []
    for scheme, colours in zip(("default", "slate"), re.findall(r":root \{(.*?)\}", style, re.DOTALL), strict=True):
        variables = "\n".join(re.findall(r"--[\w-]+: #\w+;", colours))
        rules.append(f'[data-md-color-scheme="{scheme}"] {{\n{variables}\n}}\n')
    return "".join(rules)


def command_line() -> str:
    """The reference of the command line as Markdown, of the very objects that parse it."""
    root = typer.main.get_command(app)
    lines = ["# The command line", "`leakbench COMMAND --help` prints the same in the terminal."]
    for context in _contexts(root.make_context("leakbench", [], resilient_parsing=True)):
        command: Any = context.command
        lines.append(f"## {context.command_path}" if context.parent else "## Options before the command")
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        lines += [f"```\n{usage}\n```", *([command.help] if context.parent and command.help else [])]
        panels: dict[str, list[str]] = {}
        for param in command.get_params(context):
            if (record := param.get_help_record(context)) and "--help" not in param.opts:
                names, text = record
                panels.setdefault(getattr(param, "rich_help_panel", None) or "", []).append(f"`{names}`\n:   {text}")
        for panel, entries in panels.items():
            lines += [f"**{panel}**"] if panel else []
            lines += entries
    return "\n\n".join(lines) + "\n"


def _contexts(context: Any) -> Iterator[Any]:
    """Of a command and those below it."""
    yield context
    for name, command in getattr(context.command, "commands", {}).items():
        yield from _contexts(command.make_context(name, [], parent=context, resilient_parsing=True))
