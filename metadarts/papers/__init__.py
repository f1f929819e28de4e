"""What is measured across tasks and runs: the tables of papers, and whether an architecture is the task's own."""
