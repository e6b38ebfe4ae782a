"""The report of a run: one HTML file that opens offline, in any browser, light or dark."""

from experiments.analysis.page.svg import inline_svg as inline_svg
from experiments.analysis.page.write import render as render
from experiments.analysis.page.write import write_page as write_page
from experiments.analysis.page.write import write_report as write_report
from experiments.common.files import write_text as write_text
