"""Ablations of label treatments and comparisons of methods, on equal terms."""
