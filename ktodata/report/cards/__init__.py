"""What goes with a data set that is shared: its card, and what catalogues are told."""
