"""What a kept result is made of: the code that it depends on, and no other."""

import pytest

from ktodata.digests import code_digest
from ktodata.evaluate import checked_answers
from ktodata.experiments import kto_training, method_training
from ktodata.files import digest_file

STAGES = [f"ktodata.stages.{name}" for name in ("ingest", "validate", "dedupe", "label_noise", "export")]
METHODS, TREATMENTS, ANSWERS = method_training.__name__, kto_training.__name__, checked_answers.__name__


@pytest.fixture
def edited(monkeypatch):
    """The modules whose digest another content of a file changes."""
    digests = code_digest.__wrapped__  # not the kept ones

    def changed_by(name, modules):
        before = {module: digests(module) for module in modules}
        with monkeypatch.context() as patch:
            patch.setattr("ktodata.digests.digest_file", lambda file: "edited" if file.name == name else digest_file(file))
            return {module.removeprefix("ktodata.stages.") for module in modules if digests(module) != before[module]}

    return changed_by


def test_a_stage_depends_on_the_code_that_it_imports_and_on_no_other(edited):
    assert len({code_digest(module) for module in STAGES}) == len(STAGES)
    assert edited("safety.py", STAGES) == set()  # a probe
    assert edited("minhash.py", STAGES) == {"dedupe"}
    assert edited("objectives.py", STAGES) == set()  # a package names it for type checkers, and loads it when it is asked for
    assert edited("halos.py", STAGES) == {"ingest"}  # a package imports it for others
    assert edited("judge_verdicts.py", STAGES) == {"label_noise"}  # looked up in its folder, imported by nobody
    assert edited("feedback.py", STAGES) == {module.removeprefix("ktodata.stages.") for module in STAGES}


@pytest.mark.parametrize(
    ("file", "arms"),
    [
        ("preference_pairs.py", {METHODS}),
        ("trl_trainers.py", {METHODS}),
        ("train_methods.py", {METHODS}),
        ("rewards.py", {METHODS}),
        ("generation.py", {METHODS, ANSWERS}),
        ("shared_beginning.py", {METHODS, ANSWERS}),
        ("objectives.py", {METHODS, TREATMENTS}),
        ("models.py", {METHODS, TREATMENTS, ANSWERS}),
        ("comparison.py", set()),  # what is made of trained arms
        ("method_verdict.py", set()),
        ("contrast.py", set()),
    ],
)
def test_a_trained_arm_depends_on_the_code_that_trains_and_asks_it(edited, file, arms):
    assert edited(file, (METHODS, TREATMENTS, ANSWERS)) == arms
