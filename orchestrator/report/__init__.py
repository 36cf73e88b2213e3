"""One cross-rank answer for a run, in the terminal and in files."""
