"""What is believed of a label, and what is done about it."""
