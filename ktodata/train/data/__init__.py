"""From rows to packed token batches."""
