"""Budgets held against figures: the verdict, and regressions against an earlier report."""
