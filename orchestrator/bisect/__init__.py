"""The search for the smallest set of changes that mends the end of a model: each trial is a run."""
