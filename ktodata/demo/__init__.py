"""Trouble put into the shipped sample by a seeded program, and what the audit says of it, beside each other."""
