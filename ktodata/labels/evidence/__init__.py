"""What speaks for or against a label, each kind in a file of its own: `evidence(rows) -> Evidence | None`, and it acts.

A file that is put here is asked for every table (gather.py). What it says moves no probability by itself: reviewed rows decide
how much of it is believed, and with which sign (people/reviewed_model.py; people/stacking.py, in a column as a vote has).
"""
