"""Traces of applications with the verdicts on them, one file a service; trace_texts.py is what they have in common."""
