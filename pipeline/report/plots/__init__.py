"""Plots of the HTML report, as SVG that needs no script."""
