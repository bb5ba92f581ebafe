"""Work of each command, without its command line: plan, run and estimate searches, check operators, confirm fronts."""
