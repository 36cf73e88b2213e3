"""Write report.html: one file that works offline, with all styles, scripts and data in it."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.report.html.details import details
from aclcmp.orchestrator.report.html.glossary import GLOSSARY
from aclcmp.orchestrator.report.html.grid import columns_of, figures
from aclcmp.orchestrator.report.html.overview import overview
from aclcmp.orchestrator.report.html.packed import pack, pack_json, printable
from aclcmp.orchestrator.report.html.summary import summary_of

_SCRIPTS = (
    "unpack.js",
    "svg.js",
    "terms.js",
    "address.js",
    "grid.js",
    "charts.js",
    "depth.js",
    "values.js",
    "facts.js",
    "label.js",
    "rows.js",
    "table.js",
)
_SERVED, _LAST = "served.js", "main.js"
_SELF = "'self'"
_STYLES = ("page.css", "lead.css", "grid.css", "charts.css", "table.css", "label.css")


def write_html(report: Report, path: Path) -> None:
    """Write report.html as UTF-8. Texts of the user's run are only ever text; the page may load nothing.

    Raises OSError when the file cannot be written.
    """
    text, _ = page_text(report)
    path.write_text(text, encoding="utf-8", newline="\n")


def page_text(report: Report, *, served: bool = False) -> tuple[str, str]:
    """Return the page with all its data in it, and its Content-Security-Policy; without data for a page that is served.

    A served page asks its server for them, and may load nothing else.
    """
    columns = columns_of(report)
    script = "".join(_own(name) for name in (*_SCRIPTS, *((_SERVED,) if served else ()), _LAST))
    policy = _content_policy(_hash(script.encode()), served=served)
    text = template("page.html.jinja").render(
        summary=summary_of(report),
        run_id=report.run_id,
        policy=policy,
        style="".join(_own(name) for name in _STYLES),
        script=script,
        glossary=GLOSSARY,
        served=served,
        overview="" if served else pack_json(overview(report, columns)),
        figures="" if served else pack(figures(report.judgement.labels, columns)),
        details="" if served else pack_json(details(report)),
    )
    return text, policy


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


def _content_policy(script: str, *, served: bool) -> str:
    """Return the Content-Security-Policy: no network (but a served page's server), and no script but that of this hash.

    The scripts set style attributes; without a network styles can do no harm.
    """
    return (
        f"default-src 'none'; script-src {script}; style-src 'unsafe-inline'; img-src data:; "
        f"{'connect-src ' + _SELF + '; ' if served else ''}base-uri 'none'; form-action 'none'"
    )
