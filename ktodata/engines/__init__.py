"""Where dear and pure work on parts runs: in this process, in several of this machine, or on a Ray cluster."""
