"""Plain records read many at once, column by column; the rows are those that reading each alone gives."""
