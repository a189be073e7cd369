"""What texts have in common: words, shingles, near duplicates, prompt groups, contamination."""
