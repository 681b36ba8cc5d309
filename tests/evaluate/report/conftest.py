"""A short distillation and a head for the tests of the report."""

from report_runs import experiment, head, quick_costs, run  # noqa: F401
