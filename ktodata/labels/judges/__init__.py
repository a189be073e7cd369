"""An optional second opinion: a language model says, under the team's own written criterion, whether a completion is desirable.

The judge is asked in several wordings, so that a leaning towards "yes", towards the first answer named or towards what it read
last shows as disagreement with itself. Prompts and completions are other people's words: they stand inside a fence whose mark
nobody can know beforehand, and whatever they ask for is not done here. Answers that are not a plain yes or no count as none.

Nothing is asked of a network unless `endpoint` is given, and then of that address only.

judge_settings.py says who is asked and how, judge_questions.py has the wordings, judge_plan.py all questions about some rows and
what they cost, judge_endpoint.py and judge_local.py ask, judge_workers.py asks several at a time, judge_store.py keeps the
answers, judge_scores.py reads them; bias_probes.py plants what a judge may lean to, judge_agreement.py compares it with people.
"""
