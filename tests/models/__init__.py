"""Real models, run in two ways on real ranks: any layout against any layout, from labels to verdicts."""
