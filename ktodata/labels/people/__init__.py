"""What people, judges and rules say of a label: votes, raters, reviews, drift."""
