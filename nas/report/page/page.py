"""Render the report of a study as one HTML page that needs no network."""

import base64
import gzip
import json
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from nas.report.page.contents import Contents
from nas.report.page.gathering import gather
from nas.report.page.reported import Reported

_COLOURS = ("#2563eb", "#ea580c", "#059669", "#c026d3", "#ca8a04", "#0891b2", "#dc2626", "#7c3aed")
"""Colours of operators in drawings; further operators begin anew."""


def page(study: Reported) -> str:
    """Return the report of a study as HTML."""
    return render(gather(study))


def render(contents: Contents) -> str:
    """Return a report as HTML. Texts that come from users or files are escaped; drawings are ours."""
    environment = Environment(
        loader=PackageLoader("nas.report.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    operators = dict.fromkeys(name for member in contents.members for name in member.operators)
    figures = {name: chart.figure for name, chart in contents.charts.items()}
    return environment.get_template("report.html").render(
        contents=contents,
        css=(resources.files("nas.report.page") / "templates" / "report.css").read_text(encoding="utf-8"),
        colours={name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(operators)},
        figures=_in_script(figures),
        plotly=_compressed_plotly(),
    )


def _in_script(value: object) -> str:
    """Return JSON that may stand in a script element, whatever its texts are."""
    return json.dumps(value, default=_plain).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _plain(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _compressed_plotly() -> str:
    """Return Plotly's script in gzip and base64, 2 MB instead of 4.8; browsers decompress it since 2023."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode("ascii")
