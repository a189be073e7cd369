"""Personal data and secrets: found by their form, and masked."""
