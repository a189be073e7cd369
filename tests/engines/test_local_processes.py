"""Parts in several processes: in order, each model loaded once, and a process that is killed costs a part run again."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from engine_works import counts, lengths, processes

import ktodata as kd
from ktodata.engines.engine import InProcess, current_engine
from ktodata.engines.local_processes import LocalProcesses, thread_limits
from ktodata.engines.running import running_on
from ktodata.errors import EngineError, MissingExtraError, ModelError, SettingError
from ktodata.pipeline.self_training import dry_run

TEXTS = [["a" * number] * 2 for number in range(1, 13)]  # twelve parts
EXPECTED = [number for number in range(1, 13) for _ in range(2)]


def test_results_come_in_order_from_processes_that_load_the_model_once(tmp_path):
    results = list(LocalProcesses(3).map(lengths(tmp_path), iter(TEXTS)))
    assert counts(results) == EXPECTED == counts(InProcess().map(lengths(tmp_path / "."), TEXTS))
    used = processes(results)
    assert 1 <= len(used) <= 3
    assert not any(psutil.pid_exists(process) for process in used)
    loaded = {int(note.name.removeprefix("loaded-")) for note in tmp_path.glob("loaded-*")}
    assert used <= loaded and len(loaded) <= 4  # one of them is this process, in which the last line ran


def test_only_a_few_parts_are_taken_ahead(tmp_path):
    taken = []
    parts = (taken.append(number) or [str(number)] for number in range(100))
    results = LocalProcesses(2).map(lengths(tmp_path), parts)
    next(results)
    assert len(taken) <= 6
    results.close()
    assert len(taken) <= 6


def test_a_single_part_starts_no_process(tmp_path):
    assert counts(LocalProcesses(2).map(lengths(tmp_path), TEXTS[:1])) == [1, 1]
    assert list(LocalProcesses(2).map(lengths(tmp_path), [])) == []
    (note,) = tmp_path.glob("loaded-*")
    assert note.name == f"loaded-{psutil.Process().pid}"


def test_a_part_whose_process_is_killed_is_run_again(tmp_path):
    parts = [["a"], ["die-once"], *TEXTS]
    assert counts(LocalProcesses(2).map(lengths(tmp_path), parts)) == [1, 8, *EXPECTED]
    assert (tmp_path / "died").exists()


def test_a_part_that_kills_every_process_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"part 3 \(2 texts\) lost its worker 3 times, last: exit code -9: it was killed"):
        list(LocalProcesses(2).map(lengths(tmp_path), [["a"], ["b"], ["die", "x"], *TEXTS]))


def test_an_error_of_the_work_comes_as_it_is(tmp_path):
    with pytest.raises(ModelError, match="no such word"):
        list(LocalProcesses(2).map(lengths(tmp_path), [["a"], ["fail"]]))
    with pytest.raises(RuntimeError, match="Unsendable"):
        list(LocalProcesses(2).map(lengths(tmp_path), [["a"], ["odd"]]))


def test_a_worker_that_has_another_model_is_refused(tmp_path):
    work = lengths(tmp_path)
    assert work.model == {"version": 1}
    (tmp_path / "version").write_text("2")
    with pytest.raises(ModelError, match="the model 'lengths' of a worker is not the one that this run has"):
        list(LocalProcesses(2).map(work, TEXTS))


def test_processes_end_when_their_driver_is_killed(tmp_path):
    """The driver kills itself once it has two results; its processes are not its children's children, and nobody waits for them."""
    script = (
        "import os, sys, psutil; from pathlib import Path; from engine_works import lengths;"
        "from ktodata.engines.local_processes import LocalProcesses;"
        "results = LocalProcesses(2).map(lengths(Path(sys.argv[1])), ([str(n)] for n in range(10**9)));"
        "next(results); next(results);"
        "print(*[child.pid for child in psutil.Process().children()], flush=True); os.kill(os.getpid(), 9)"
    )
    path = [str(Path(__file__).parents[1] / "support"), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {script}", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    children = [psutil.Process(int(pid)) for pid in done.stdout.split() if psutil.pid_exists(int(pid))]
    assert done.returncode == -9 and len(done.stdout.split()) == 2
    assert psutil.wait_procs(children, timeout=20)[1] == []


def test_the_cores_are_shared_out_unless_the_user_has_said_otherwise(monkeypatch):
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_limits(2) == {"OMP_NUM_THREADS": "3", "RAYON_NUM_THREADS": "2"}


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"engine": "locl"}, "there is no engine 'locl'. Did you mean 'local'"),
        ({"engine": "local", "workers": 0}, "workers is a number from 1 on; got 0"),
        ({"workers": 2}, "give engine local or ray, too"),
        ({"engine": "local", "address": "head:6379"}, "address is that of a Ray cluster"),
    ],
)
def test_an_engine_that_is_none_is_refused_before_a_row_is_read(how, sentence, tmp_path):
    recipe = {"name": "none", "ingest": {"paths": [str(tmp_path / "nothing.jsonl")]}, "steps": [{"embed": {}}]}
    for go in (kd.run, dry_run):
        with pytest.raises(SettingError, match=sentence):
            go(recipe, out=tmp_path / "run", **how)


def test_ray_that_is_not_installed_is_named(monkeypatch):
    from ktodata import extras

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"the engine ray needs ray: pip install 'ktodata\[ray\]'"), running_on("ray"):
        pass


def test_the_engine_holds_inside_and_no_longer():
    assert str(current_engine()) == "in_process"
    with running_on("local", workers=2):
        assert str(current_engine()) == "local, 2 workers"
    with running_on("local", workers=1):
        assert str(current_engine()) == "in_process"
    assert str(current_engine()) == "in_process"
