"""MkDocs' events: facts are filled in, committed figures come along, the site needs no network."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parent
PATHS = [str(HERE), str(HERE.parents[1])]
sys.path[:0] = PATHS

from facts import filled  # noqa: E402
from facts_of_results import PUBLISHED  # noqa: E402

_SHOWN = re.compile(r"\]\(/published/([^)]+)\)")
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?(https?:)?//"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preconnect|preload|icon))[^>]*\bhref=[\"']?(https?:)?//"
)
"""What a browser would fetch from another host; links to click are none of it."""
_SHIM = re.compile(r'<script src="https://unpkg\.com/iframe-worker/shim"></script>')
_WORKER = """\
(() => {
  const text = %s;
  const Plain = window.Worker;
  if (location.protocol === "file:")
    window.Worker = class extends Plain {
      constructor() { super(URL.createObjectURL(new Blob([text]))); }
    };
})();
"""


def on_config(config: Any) -> None:
    """Let this repository's packages be found: MkDocs takes back what a hook's import added."""
    sys.path[:0] = PATHS


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fill in the facts, and add the figures that they show to the site."""
    text = filled(markdown)
    for path in _SHOWN.findall(text):
        uri = f"published/{path}"
        if files.get_file_from_path(uri) is None:
            figure = File.generated(config, uri, abs_src_path=str(PUBLISHED / path))
            figure.generated_by = "docs/hooks/hook.py"
            files.append(figure)
    up = "../" * page.file.src_uri.count("/")
    return _SHOWN.sub(rf"]({up}published/\1)", text)


def on_post_build(config: Any) -> None:
    """Let search work from the disk, and refuse a page that needs another host.

    A browser starts no worker from a file, only from text. The theme fetches a script that gets
    around this from elsewhere; here the worker's text goes into a script of the site's own.
    """
    site = Path(config.site_dir)
    scripts = site / "assets" / "javascripts"
    (worker,) = scripts.glob("workers/search.*.min.js")
    text = json.dumps(worker.read_text(encoding="utf-8")).replace("</", "<\\/")
    (scripts / "worker.js").write_text(_WORKER % text, encoding="utf-8")
    for path in sorted(site.rglob("*.html")):
        up = "../" * (len(path.relative_to(site).parts) - 1)
        own = f'<script src="{up}assets/javascripts/worker.js"></script>'
        page = _SHIM.sub(own, path.read_text(encoding="utf-8"))
        path.write_text(page, encoding="utf-8")
        if fetched := _FETCHED.search(page):
            raise PluginError(f"{path}: needs the network: {fetched[0]}")
