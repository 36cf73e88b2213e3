"""Write report.html: one file that works offline, with all styles, scripts, data and the charting library in it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.report.html.details import details
from aclcmp.orchestrator.report.html.grid import columns_of, figures
from aclcmp.orchestrator.report.html.overview import overview
from aclcmp.orchestrator.report.html.packed import pack, pack_json, printable
from aclcmp.orchestrator.report.html.summary import summary_of

_SCRIPTS = ("unpack.js", "grid.js", "search.js", "charts.js", "depth.js", "facts.js", "label.js", "main.js")
_STYLES = ("page.css", "grid.css", "label.css")


def write_html(report: Report, path: Path) -> None:
    """Write report.html as UTF-8. Texts of the user's run are only ever text; the page may load nothing.

    Raises OSError when the file cannot be written.
    """
    library = _library()
    script = "".join(_own(name) for name in _SCRIPTS)
    columns = columns_of(report)
    text = template("page.html.jinja").render(
        summary=summary_of(report),
        run_id=report.run_id,
        policy=_content_policy(_hash(script.encode()), library.hash),
        style="".join(_own(name) for name in _STYLES),
        script=script,
        library=library.packed,
        overview=pack_json(overview(report, columns)),
        figures=pack(figures(report.judgement.labels, columns)),
        details=pack_json(details(report)),
    )
    path.write_text(text, encoding="utf-8", newline="\n")


@dataclass(frozen=True, slots=True)
class _Library:
    packed: str
    hash: str


@cache
def _library() -> _Library:
    """The charting library, packed once per process. It is not imported: its script is all that is wanted."""
    script = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return _Library(pack(script), _hash(script))


def _hash(script: bytes) -> str:
    """Return what allows a script by its content in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def template(name: str) -> jinja2.Template:
    """Return a template of this folder, which escapes every text that it is given."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_own(name))


def _finalize(value: Any) -> Any:
    """Show every text that the template is given without control characters."""
    return printable(value) if type(value) is str else value


def _own(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _content_policy(*hashes: str) -> str:
    """Return the Content-Security-Policy: no network at all, and no script but those of these hashes.

    The charting library writes style elements and attributes of its own; without a network styles can do no harm.
    """
    return (
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
