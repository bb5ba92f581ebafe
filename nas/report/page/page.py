"""Render the report of a study as one HTML page that needs no network."""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from datetime import datetime
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from nas._version import __version__
from nas.report.comparison import Comparison
from nas.report.page import charts, network
from nas.report.page.colours import colour_of
from nas.report.page.contents import Contents
from nas.report.page.gathering import gather
from nas.report.page.reported import Reported
from search_spaces.architecture import SEPARATOR

_COMMAND = re.compile(r"nas |[a-z0-9]+[-_0-9:]")
"""Beginnings of lines that stay as they are: commands, names of studies, and of members before a colon."""
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def page(study: Reported) -> str:
    """Return the report of a study as HTML."""
    return render(gather(study))


def render(contents: Contents) -> str:
    """Return a report as HTML. Texts that come from users or files are escaped; drawings are ours."""
    operators = dict.fromkeys(name for member in contents.members for name in member.operators)
    colours = {name: colour_of(name) for name in operators}
    figures = {name: chart.figure for name, chart in contents.charts.items()}
    return _render("report.html", figures, contents=contents, colours=colours)


def render_comparison(comparison: Comparison) -> str:
    """Return a comparison of two studies as HTML."""
    figure = charts.fronts_chart(comparison) if comparison.is_accuracy_comparable else None
    columns, rows = comparison.cells()
    return _render(
        "comparison.html",
        {} if figure is None else {"fronts": charts.as_json(figure)},
        comparison=comparison,
        columns=columns,
        rows=rows,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
    )


def _render(template: str, figures: Mapping[str, object], **values: object) -> str:
    """Return a page of figures and values, which a template arranges; texts are escaped."""
    environment = Environment(
        loader=PackageLoader("nas.report.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"sentence": _sentence, "whole_operators": _with_whole_operators, "style": network.style}
    return environment.get_template(template).render(
        css=(resources.files("nas.report.page") / "templates" / "report.css").read_text(encoding="utf-8"),
        figures=_in_script(figures),
        figures_by_name=figures,
        plotly=_compressed_plotly(),
        **values,
    )


def _sentence(text: str) -> Markup:
    """Return a text, escaped, that begins with a capital; no line ends within an option such as `--base-epochs`."""
    text = f"{text[:1].upper()}{text[1:]}" if not _COMMAND.match(text) else text
    return Markup(_OPTION.sub(r'<span class="option">\g<0></span>', str(escape(text))))  # noqa: S704 - escaped


def _with_whole_operators(summary: str) -> Markup:
    """Return an architecture, escaped, in which lines end between operators, not between one and its layers."""
    dot = SEPARATOR.rstrip()  # within the element: a browser would break the line before it
    parts = str(escape(summary)).replace(SEPARATOR, f'{dot}</span> <span class="operator">')
    return Markup(f'<span class="operator">{parts}</span>')  # noqa: S704 - escaped


def _in_script(value: object) -> str:
    """Return JSON that may stand in a script element, whatever its texts are."""
    return json.dumps(value, default=_plain).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _plain(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _compressed_plotly() -> str:
    """Return Plotly's script in gzip and base64, 2 MB instead of 4.8; browsers decompress it since 2023."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode("ascii")
