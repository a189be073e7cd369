"""People's verdicts: read from files and stores, and put beside the rows that they are on."""
