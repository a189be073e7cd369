"""Files of every kind as records: what a file is by its first bytes, and a reader for each kind."""
