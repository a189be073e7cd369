"""Rows that were withdrawn at their source leave all that ktodata has made of them: `ktodata forget`.

requested_ids.py     the ids that a person hands in
withdrawn_rows.py    the rows of a run that have them
withdrawn_texts.py   what to look for in files that are not the run's own
cache_removal.py     caches, which are kept by content
review_removal.py    verdicts
file_removal.py      the files of a run folder, its own and others
receipt.py           what was done, and what could not be reached; no text and no id
forget.py            all of it in order, so that whoever is killed meanwhile goes on
"""
