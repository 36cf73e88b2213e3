"""One rank's labels on disk: ordinary HDF5 with a commit journal."""
