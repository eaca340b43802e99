"""Recipes beside each other: built, measured in one run, and judged by Pareto dominance."""
