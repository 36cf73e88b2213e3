"""Start the ranks and bring back how each of them ended; leave no process behind."""
