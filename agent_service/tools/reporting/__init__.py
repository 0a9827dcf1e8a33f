"""The tools of the reporting agent: charts and reports, made from what was measured and nothing else."""
