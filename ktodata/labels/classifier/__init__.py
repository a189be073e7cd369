"""A probability for each row from models that never saw its label, and how well they find errors on this very data."""
