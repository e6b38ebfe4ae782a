"""The report of a run: one HTML file that opens offline, in any browser, light or dark."""

from experiments.page.page import write_page as write_page
