"""Submission: from a cluster file to a job on a cluster, its log here, its exit code, and its report back."""
