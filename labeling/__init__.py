"""Inside the user's process: what a label is and how it is stored. Never imports orchestrator, Ray or torch."""
