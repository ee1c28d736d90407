"""Local training: SGD and its relatives, one client at a time, stacked over clients, or in worker processes."""
