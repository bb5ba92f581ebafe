"""Hooks of MkDocs: what pages link to outside of this folder becomes part of the site.

Pages are written for GitHub, too, where `../SECURITY.md` leads to the file beside this folder. MkDocs copies such a
file into the site, and the link leads there.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
"""Pages beside this folder."""
_UP = re.compile(r"\]\(\.\./([^)#\s]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages beside this folder, and the other files that pages link to."""
    texts = [file.content_string for file in files if file.is_documentation_page()]
    texts += [(ROOT / name).read_text(encoding="utf-8") for name in PAGES]
    linked = {name for text in texts for name in _UP.findall(text) if (ROOT / name).is_file()}
    for name in sorted({*PAGES, *linked}):
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs names them
    """Return a page with links as the site needs them."""
    if page.file.src_uri in PAGES:
        return re.sub(r"\]\((docs/)?(?=[\w./-]+[)#])", "](", markdown)
    return _UP.sub(r"](\1", markdown) if "/" not in page.file.src_uri else markdown
