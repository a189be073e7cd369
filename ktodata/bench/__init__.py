"""`ktodata bench`: what finds and repairs wrong labels of unpaired feedback, measured on label sources whose truth is known.

label_sources.py   a folder's files as label sources: what was given, what is true, who voted
bench_rows.py      a source's rows as methods see them; the truth is not among it
bench_methods.py   what a method is, and the registry; one function is a method
peer_methods.py    the methods of others, as strong as they get; own_methods.py: this package
bench_answers.py   what a method chose and answered, checked
answer_code.py     the sources that an answer hangs on: it is kept as long as they are the same
bench_tracks.py    detect: are wrong labels ranked first? repair: what is right after some reviews?
bench_training.py  train: how well does a policy rank held-out rows that learnt from labels as given, repaired, true?
bench_cells.py     one method on one source and budget, kept on disk, so that a stopped bench goes on
bench_table.py     the page: each figure with a paired interval
"""
