"""Write report.html: one file that works offline, with all styles, scripts, data and the charting library in it."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from aclcmp.orchestrator.report.html.details import details
from aclcmp.orchestrator.report.html.grid import columns_of, figures
from aclcmp.orchestrator.report.html.overview import overview
from aclcmp.orchestrator.report.html.packed import packed, packed_json, shown
from aclcmp.orchestrator.report.html.summary import summary_of
from aclcmp.orchestrator.report.model import Report

_SCRIPTS = ("unpack.js", "grid.js", "search.js", "charts.js", "depth.js", "label.js", "main.js")


def write_html(report: Report, path: Path) -> None:
    """Write report.html as UTF-8. Texts of the user's run are only ever text; the page may load nothing.

    Raises OSError when the file cannot be written.
    """
    library = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    script = "".join(_own(name) for name in _SCRIPTS)
    columns = columns_of(report)
    text = _template().render(
        summary=summary_of(report),
        run_id=report.run_id,
        policy=_content_policy(script.encode(), library),
        style=_own("page.css"),
        script=script,
        library=packed(library),
        overview=packed_json(overview(report, columns)),
        figures=packed(figures(report.judgement.labels, columns)),
        details=packed_json(details(report)),
    )
    path.write_text(text, encoding="utf-8", newline="\n")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_own("page.html.jinja"))


def _finalize(value: Any) -> Any:
    """Show every text that the template is given without control characters."""
    return shown(value) if type(value) is str else value


def _own(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _content_policy(*scripts: bytes) -> str:
    """Return the Content-Security-Policy: no network at all, and no script but these.

    The charting library writes style elements and attributes of its own; without a network styles can do no harm.
    """
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
