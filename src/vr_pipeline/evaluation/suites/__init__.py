"""Public suites: clips of a policy under a suite's names, and the suite's scores in tables with intervals."""
