"""Outside the user's process: launch the ranks, plan, compare, judge, report."""
