"""A report as one HTML file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import importlib.resources

import jinja2

from restore.reports import cases, plots
from restore.reports.report import Report
from restore.reports.tables import remarks, shown_p

MOST_ROWS = 1000
"""Files in the table of the page; CSV and JSON have all."""


def page(report: Report) -> str:
    """The page; whatever a file is called, its name stays text."""
    source = importlib.resources.files("restore.reports").joinpath("page.html.j2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(source.read_text("utf-8"))
    comparisons = [one for several in report.comparisons.values() for one in several]
    return template.render(
        report=report,
        specs={spec.name: spec for spec in report.metrics},
        comparisons=comparisons,
        shown_p=shown_p,
        remarks=remarks,
        plots=list(plots.distributions(report)),
        courses=list(plots.courses(report)),
        cases=list(cases.find_cases(report)),
        side=cases.CROP_SIDE,
        line_height=plots.LINE_HEIGHT,
        width=plots.WIDTH,
        margin=plots.MARGIN,
        most_rows=MOST_ROWS,
        stray=[result for result in report.results if result.stray],
    )
