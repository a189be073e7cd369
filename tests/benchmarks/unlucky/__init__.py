"""What tests/benchmarks/reliability.py tries: commands that are killed, damaged run folders, other circumstances."""
