import subprocess
import sys

import numpy as np
import pytest

from ktodata.labels.classifier.detection import confident_learning


def test_confident_learning_by_hand():
    """Thresholds: undesirable (0.9 + 0.8 + 0.1) / 3 = 0.6, desirable (0.9 + 0.8 + 0.7) / 3 = 0.8.

    Row 2 is given undesirable and 0.9 >= 0.8 sure of the other: counted off the diagonal. Row 5 reaches no threshold and is not
    counted. Counts [[2, 1], [0, 2]]; calibrated to three rows a class [[2, 1], [0, 3]]: one undesirable row to doubt.
    """
    labels = np.array([False, False, False, True, True, True])
    joint, doubted = confident_learning(labels, np.array([0.1, 0.2, 0.9, 0.9, 0.8, 0.7]))
    assert joint.tolist() == [[2, 1], [0, 3]]
    assert doubted.tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("desirable", [10, 990])
def test_confident_learning_with_a_rare_class(desirable):
    """Ten rows of one class among a thousand, labels and probabilities unrelated: joint and mask keep to the counts of the labels."""
    labels = np.arange(1000) < desirable
    joint, doubted = confident_learning(labels, np.random.default_rng(0).random(1000))
    assert joint.sum(axis=1).tolist() == [1000 - desirable, desirable]
    for given in (False, True):
        assert (doubted & (labels == given)).sum() <= joint[int(given), 1 - int(given)]


def test_the_detector_is_imported_without_cleanlab():
    loaded = "import ktodata.stages.label_noise, ktodata.labels.classifier.detection, ktodata.labels.people.votes, sys; "
    subprocess.run([sys.executable, "-c", loaded + "assert 'cleanlab' not in sys.modules"], check=True)
