"""On Ray: the same bytes from a cluster of two nodes, workers that are lost on the way, and errors that say what to do.

`make test-ray` runs these: Ray is no dependency of the suite.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_works import counts, lengths, processes

from ktodata.embeddings import static_encoder
from ktodata.embeddings.encode import encode_texts
from ktodata.engines.running import running_on
from ktodata.errors import EngineError, ModelError

ray = pytest.importorskip("ray", reason="Ray is not installed: make test-ray")
pytestmark = pytest.mark.ray

SUPPORT = str(Path(__file__).parents[1] / "support")
TEXTS = [["a" * number] * 2 for number in range(1, 13)]
EXPECTED = [number for number in range(1, 13) for _ in range(2)]


@pytest.fixture(scope="module")
def two_nodes():
    """A cluster of two nodes with two processors each, and this process connected to it."""
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join([SUPPORT, *sys.path])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def address(two_nodes):
    return two_nodes.address


def map_on_ray(work, parts, address, workers=None):
    from ktodata.engines.engine import current_engine

    with running_on("ray", workers=workers, address=address):
        return list(current_engine().map(work, parts))


def test_results_come_in_order_from_both_nodes(tmp_path, address):
    """Four workers take two nodes, as each has two processors."""
    results = map_on_ray(lengths(tmp_path), [["wait", "a" * number] for number in range(80)], address)
    assert counts(results) == [length for number in range(80) for length in (4, number)]
    assert len(processes(results)) == 4
    assert not ray.is_initialized()


def test_more_workers_than_processors_wait_for_nobody(tmp_path, address):
    assert counts(map_on_ray(lengths(tmp_path), TEXTS, address, workers=7)) == EXPECTED


def test_vectors_are_the_same_bytes(address, monkeypatch):
    monkeypatch.setattr(static_encoder, "BATCH", 32)
    texts = [f"{number} texts that are counted" for number in range(300)]
    how = {"model": "packaged:wordllama-256", "batch_size": 32, "cache": False}
    here = encode_texts(texts, **how)
    for workers in (1, 2, 7):
        with running_on("ray", workers=workers, address=address):
            assert np.array_equal(encode_texts(texts, **how).vectors, here.vectors)


def test_a_part_whose_worker_is_killed_is_run_again(tmp_path, address):
    assert counts(map_on_ray(lengths(tmp_path), [["a"], ["die-once"], *TEXTS], address)) == [1, 8, *EXPECTED]
    assert (tmp_path / "died").exists()


def test_a_part_that_kills_every_worker_is_named(tmp_path, address):
    with pytest.raises(
        EngineError,
        match=r"part 3 \(2 texts\) lost its worker 3 times, last: The actor is dead because its worker process has died",
    ):
        map_on_ray(lengths(tmp_path), [["a"], ["b"], ["die", "x"], *TEXTS], address)


def test_an_error_of_the_work_comes_as_it_is(tmp_path, address):
    with pytest.raises(ModelError, match="no such word"):
        map_on_ray(lengths(tmp_path), [["a"], ["fail"]], address)


def test_a_node_that_is_lost_takes_no_part_with_it(tmp_path, two_nodes):
    """The second node goes while its workers are busy; what they had is done by the first."""
    node = two_nodes.add_node(num_cpus=2)
    gone = []

    def parts():
        for number in range(60):
            if number == 40:
                two_nodes.remove_node(node, allow_graceful=False)
                gone.append(number)
            yield [f"wait {number}"]

    expected = [len(f"wait {number}") for number in range(60)]
    assert counts(map_on_ray(lengths(tmp_path), parts(), two_nodes.address, workers=6)) == expected
    assert gone == [40]


def test_an_address_where_nobody_listens_is_said_at_once():
    with pytest.raises(EngineError, match="no Ray cluster at localhost:1: "), running_on("ray", address="localhost:1"):
        pass


def test_a_run_on_a_ray_of_its_own(tmp_path):
    """By the command: Ray is started, the result is that of this process, and Ray is ended.

    "local" is Ray's word for a new one, as it would else join the tests' cluster.
    """
    from ktodata import datasets

    lines = datasets.sample_path().read_text(encoding="utf-8").splitlines()[:200]
    (tmp_path / "feedback.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        f"name: here\ningest: {{paths: [{tmp_path}/feedback.jsonl], label: {{column: thumb, up: true, down: false}}}}\n"
        "steps:\n  - embed: {cache: false}\n",
        encoding="utf-8",
    )
    files = {}
    for name, how in (("here", []), ("ray", ["--engine", "ray", "--workers", "2", "--address", "local"])):
        command = [sys.executable, "-m", "ktodata", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / name), *how]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        places = [tmp_path / name / "ledger.parquet", *sorted((tmp_path / name / "shards").iterdir())]
        files[name] = {place.name: place.read_bytes() for place in places}
        files[name]["vectors"] = (tmp_path / name / "stages" / "embed" / "columns.parquet").read_bytes()
    assert files["ray"] == files["here"]
