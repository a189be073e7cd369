"""Several processes train as one does: the same losses, z0, gradients, weights and telemetry, whatever each of them holds.

Two processes are started once; they go through all of CASES and leave what they found in files, one a case and process. Four go
through FOUR of them, as if they were two on each of two machines.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import polars as pl
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tiny_families import tiny_family
from tiny_models import random_rows, text_rows, tiny_gpt2, tiny_llama, word_tokenizer

from ktodata.errors import KtodataError, SettingError
from ktodata.evaluate import evaluate
from ktodata.train import __main__, fit, loop
from ktodata.train.data.packing import Sequences
from ktodata.train.distributed.processes import current_processes
from ktodata.train.distributed.sharding import check_can_shard, whole
from ktodata.train.distributed.work_split import split_work
from ktodata.train.model import packed_model
from ktodata.train.model.packed_model import PackedModel
from ktodata.train.model.scorer import Scorer
from ktodata.train.model.stored_dtype import as_stored
from ktodata.train.state import trainable

CPU = torch.device("cpu")
SIZE = 2
BOTH = ("ddp", "fsdp")
# an odd number of rows in each step, several micro-batches of them in each process, two rows of most prompts
BASE = {
    "batch_size": 7,
    "micro_batch_tokens": 40,
    "epochs": 2,
    "max_steps": 3,
    "learning_rate": 3e-3,
    "warmup_fraction": 0.0,
    "beta": 0.3,
    "device": "cpu",
    "eval_every_steps": 2,
}
# what is set differently in each case, and under what it is run
CASES = {
    "plain": ({}, BOTH),
    "one_micro_batch": ({"micro_batch_tokens": 4000}, ("fsdp",)),
    "one_row_each": ({"micro_batch_size": 1}, ("ddp",)),
    "sampled_z0": ({"kl_pairs_per_batch": 2}, ("fsdp",)),
    "running_mean": ({"objective": "bco"}, ("ddp",)),
    "no_reference_point": ({"objective": "apo_zero"}, ("fsdp",)),
    "adapters": ({"lora": {"r": 2}}, BOTH),
    "adapters_on_top": ({"lora": {"r": 2}, "trainable_layers": 1, "activation_cache_mb": 0.0}, ("fsdp",)),
    "top_layer": ({"trainable_layers": 1, "activation_cache_mb": 0.0}, ("fsdp",)),
    "some_cached_activations": ({"trainable_layers": 1, "activation_cache_mb": 0.003}, ("ddp",)),
    "recomputed": ({"gradient_checkpointing": True}, BOTH),
    "early_stop": ({"early_stop": {"patience": 1}, "eval_every_steps": 1, "max_steps": 6}, ("fsdp",)),
    "rows_of_one_prompt": ({"rows": "one_prompt"}, BOTH),  # all of them are one process's
    "siblings_apart": ({"objective": "kto_hybrid", "micro_batch_size": 1, "rows": "one_prompt"}, BOTH),
    "siblings": ({"objective": "kto_hybrid"}, ("fsdp",)),
    "experts": ({"model": "mixtral", "router_aux_loss_coef": 0.5}, BOTH),
    "experts_of_one_process": ({"model": "mixtral", "router_aux_loss_coef": 0.5, "rows": "one_prompt"}, BOTH),
    "another_architecture": ({"model": "gpt2"}, ("fsdp",)),
    "padded": ({"method": "padded"}, ("fsdp",)),
    "logits": ({"method": "logits"}, ("fsdp",)),
    "resumed": ({"out": "out", "save_every_steps": 2, "keep_checkpoints": True, "early_stop": {"patience": 9}}, BOTH),
}
FOUR = [("plain", "fsdp"), ("plain", "hsdp"), ("adapters", "hsdp"), ("early_stop", "hsdp"), ("resumed", "hsdp")]
RUNS = [(case, parallel) for case, (_, kinds) in CASES.items() for parallel in kinds]


def rows_of(name):
    train, held_out = text_rows(13), text_rows(8, start=13)
    if name == "one_prompt":
        train = train.with_columns(prompt=pl.lit("what is "), prompt_group=pl.lit("one"))
    return train, held_out


def trained(case, parallel, folder, place):
    """The training of a case, as far as it can be compared."""
    settings = BASE | CASES[case][0] | {"parallel": parallel}
    name, model = settings.pop("rows", "text"), settings.pop("model", "llama")
    if "out" in settings:
        settings["out"] = place / f"{case}-{parallel}"
    with only_by(settings.pop("method", "packed")):
        result = fit(folder / name, model=str(folder / model), **settings)
    return told(result)


@contextmanager
def only_by(method):
    """Inside, faster methods than this one fail at their first pass."""

    def fails(*_, **__):
        raise NotImplementedError

    with pytest.MonkeyPatch.context() as patch:
        if method != "packed":
            patch.setattr(PackedModel, "_hidden", fails)
        if method == "logits":
            patch.setattr(packed_model, "completion_logps", fails)
        yield


def told(result):
    weights = {} if result.model is None else {name: tensor.clone() for name, tensor in trainable(result.model).items()}
    held_out = pl.DataFrame([{name: evaluation[name] for name in ("step", "rows", "loss")} for evaluation in result.held_out])
    return {"history": result.history, "held_out": held_out, "telemetry": result.telemetry, "weights": weights} | {
        name: result.metrics[name] for name in ("processes", "parallel", "method", "computed_tokens", "requested_tokens")
    }


def assert_same(result, expected):
    order = ["part", "step", "row_id"]
    for name in ("history", "held_out"):  # z0 is a small difference of log-probs of tens of nats
        assert_frame_equal(result[name], expected[name], rel_tol=1e-5, abs_tol=1e-5)
    # log-probs of tens of nats, after updates that differ by rounding
    assert_frame_equal(result["telemetry"].sort(order), expected["telemetry"].sort(order), rel_tol=1e-5, abs_tol=1e-4)
    assert result["weights"].keys() == expected["weights"].keys()
    for name, tensor in expected["weights"].items():
        # attention does not depend on the bias of its keys: its gradient is nothing but rounding, which Adam blows up
        if not name.endswith("c_attn.bias"):
            # AdamW divides a gradient by its own size: of one near 0 it makes steps of rounding, which differs between processors.
            # A hundredth of one step at this rate
            torch.testing.assert_close(
                result["weights"][name], tensor, rtol=1e-5, atol=3e-5, msg=lambda text, name=name: name + text
            )


# --- in each of the processes --------------------------------------------------------------------------------------------


def process(rank, folder, place):
    os.environ["KTODATA_CACHE"] = str(place / "cache")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place / 'meet'}", rank=rank, world_size=SIZE)
    for case, parallel in RUNS:
        keep(place, f"{case}-{parallel}", rank, lambda case=case, parallel=parallel: trained(case, parallel, folder, place))
    for parallel in BOTH:
        keep(place, f"again-{parallel}", rank, lambda parallel=parallel: trained("resumed", parallel, folder, place))
        keep(place, f"every_step-{parallel}", rank, lambda parallel=parallel: weights_of_every_step(parallel, folder))
        keep(place, f"nan-{parallel}", rank, lambda parallel=parallel: error_of(broken, parallel, folder, rank))
        keep(place, f"narrow-{parallel}", rank, lambda parallel=parallel: of_a_narrow_base(parallel, folder, place))
    keep(place, "different", rank, lambda: error_of(fit, folder / "text", model=str(folder / "llama"), **BASE, seed=rank))
    dist.destroy_process_group()


def process_of_four(rank, folder, place):
    os.environ |= {"KTODATA_CACHE": str(place / "cache"), "LOCAL_WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place / 'meet'}", rank=rank, world_size=4)
    for case, parallel in FOUR:
        keep(place, f"{case}-{parallel}", rank, lambda case=case, parallel=parallel: trained(case, parallel, folder, place))
    keep(place, "again", rank, lambda: trained("resumed", "hsdp", folder, place))
    os.environ["LOCAL_WORLD_SIZE"] = "3" if rank == 3 else "1"
    settings = BASE | {"parallel": "hsdp", "seed": 1}
    keep(place, "uneven", rank, lambda: error_of(fit, folder / "text", model=str(folder / "llama"), **settings))
    dist.destroy_process_group()


def keep(place, name, rank, compute):
    torch.save(compute(), place / f"{name}-{rank}.pt")


def weights_of_every_step(parallel, folder):
    """The whole weights that this process has after each update."""
    recorded, step = [], loop.train_step

    def noted(job, batch):
        done = step(job, batch)
        recorded.append({name: whole(tensor).clone() for name, tensor in trainable(job.scorer.model).items()})
        return done

    loop.train_step = noted
    try:
        fit(folder / "text", model=str(folder / "llama"), **BASE, parallel=parallel)
    finally:
        loop.train_step = step
    return recorded


def of_a_narrow_base(parallel, folder, place):
    """The telemetry of a training that is saved in bfloat16."""
    return fit(
        folder / "text", model=str(folder / "narrow"), **BASE, parallel=parallel, out=place / f"narrow-{parallel}"
    ).telemetry


def broken(parallel, folder, rank):
    """A training in which one process alone computes what is not a number."""
    sound = loop.train_step

    def train_step(job, batch):
        done = sound(job, batch)
        if rank == 1:
            done.losses[done.losses > 0] = torch.nan  # only its own rows are there yet
        return done

    loop.train_step = train_step
    try:
        fit(folder / "text", model=str(folder / "llama"), **BASE, parallel=parallel)
    finally:
        loop.train_step = sound


def error_of(compute, *args, **settings):
    try:
        compute(*args, **settings)
    except KtodataError as error:
        return type(error).__name__, str(error)
    return None


# --- what they found -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place, tokenizer = tmp_path_factory.mktemp("shared"), word_tokenizer()
    vocabulary = len(tokenizer)
    models = {"llama": tiny_llama(vocabulary), "gpt2": tiny_gpt2(vocabulary), "narrow": tiny_llama(vocabulary).bfloat16()}
    models["mixtral"] = tiny_family("mixtral", window=64)
    models["mixtral"].resize_token_embeddings(vocabulary)
    for name, model in models.items():
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    for name in ("text", "one_prompt"):
        (place / name).mkdir()
        for part, rows in zip(("train", "validation"), rows_of(name), strict=True):
            rows.write_parquet(place / name / f"{part}-00000-of-00001.parquet")
    return place


def started(work, folder, place, processes):
    """Imports, which take longer than some of the trainings, are made once, and forked."""
    multiprocessing.set_forkserver_preload(["ktodata.train.trainer", "tiny_families", "torch.distributed.fsdp"])
    torch.multiprocessing.start_processes(work, (folder, place), nprocs=processes, start_method="forkserver")


@pytest.fixture(scope="module")
def place(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("two-processes")
    started(process, folder, place, SIZE)
    return place


@pytest.fixture(scope="module")
def place_of_four(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("four-processes")
    started(process_of_four, folder, place, 4)
    return place


def found(place, name, size=SIZE):
    return [torch.load(place / f"{name}-{rank}.pt", weights_only=False) for rank in range(size)]


@pytest.mark.filterwarnings("ignore:a .* model is scored by method")
@pytest.mark.parametrize(("case", "parallel"), RUNS)
def test_two_processes_train_as_one(case, parallel, folder, place, tmp_path):
    alone = trained(case, "auto", folder, tmp_path)
    first, second = found(place, f"{case}-{parallel}")
    assert (alone["processes"], alone["parallel"]) == (1, None)
    assert (first["processes"], first["parallel"]) == (SIZE, parallel)
    assert first["method"] == alone["method"] == CASES[case][0].get("method", "packed")
    assert_same(first, alone)
    if parallel == "ddp":
        assert_same(second, first)
    else:
        assert_same(second | {"weights": {}}, first | {"weights": {}})
        assert not second["weights"]  # the policy in one piece is the first one's alone


@pytest.mark.parametrize(("case", "parallel"), FOUR)
def test_four_processes_train_as_one(case, parallel, folder, place_of_four, tmp_path):
    alone = trained(case, "auto", folder, tmp_path)
    first, *others = found(place_of_four, f"{case}-{parallel}", 4)
    assert (first["processes"], first["parallel"]) == (4, parallel)
    assert_same(first, alone)
    for other in others:
        assert_same(other | {"weights": {}}, first | {"weights": {}})
        assert not other["weights"]


def test_machines_that_each_have_all_weights_go_on_from_their_checkpoint(place_of_four, folder, tmp_path, monkeypatch):
    """And so does one process alone."""
    unbroken, again = (found(place_of_four, name, 4)[0] for name in ("resumed-hsdp", "again"))
    assert again["history"].equals(unbroken["history"])
    torch.testing.assert_close(again["weights"], unbroken["weights"], rtol=0, atol=0)
    monkeypatch.setenv("KTODATA_CACHE", str(place_of_four / "cache"))
    shutil.copytree(place_of_four / "resumed-hsdp", tmp_path / "resumed-hsdp")
    assert_same(trained("resumed", "hsdp", folder, tmp_path), unbroken)


def test_machines_with_unlike_processes_cannot_share_weights_within_each(place_of_four):
    kinds, texts = zip(*found(place_of_four, "uneven", 4), strict=True)
    assert set(kinds) == {"SettingError"} and "as many processes, two or more, on each" in texts[0]


@pytest.mark.parametrize("parallel", BOTH)
def test_every_process_has_the_same_weights_after_every_update(parallel, place):
    first, second = found(place, f"every_step-{parallel}")
    assert len(first) == BASE["max_steps"]
    assert not torch.equal(first[0]["model.norm.weight"], first[1]["model.norm.weight"])
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("parallel", BOTH)
def test_a_resumed_training_of_two_processes_ends_as_the_unbroken_one(parallel, place, folder, tmp_path, monkeypatch):
    unbroken, again = found(place, f"resumed-{parallel}")[0], found(place, f"again-{parallel}")[0]
    assert again["history"].equals(unbroken["history"])
    torch.testing.assert_close(again["weights"], unbroken["weights"], rtol=0, atol=0)
    for name in ("computed_tokens", "requested_tokens"):
        assert again[name] == unbroken[name]
    # each process wrote what it holds, and no more
    written = [file.stat().st_size for file in (place / f"resumed-{parallel}").rglob("*.distcp")]
    assert len(written) == (SIZE if parallel == "fsdp" else 0)
    assert not written or max(written) < 0.6 * sum(written)
    # one process goes on from the checkpoint of two, with the last of three updates
    monkeypatch.setenv("KTODATA_CACHE", str(place / "cache"))
    shutil.copytree(place / f"resumed-{parallel}", tmp_path / f"resumed-{parallel}")
    alone = trained("resumed", parallel, folder, tmp_path)
    assert alone["requested_tokens"] == unbroken["requested_tokens"]
    assert_same(alone, unbroken)


@pytest.mark.parametrize("parallel", BOTH)
def test_files_are_those_of_a_training_alone(parallel, place):
    out = place / f"resumed-{parallel}"
    facts = json.loads((out / "training.json").read_text())
    saved = torch.load(place / f"resumed-{parallel}-0.pt", weights_only=False)["weights"]
    from safetensors.torch import load_file

    torch.testing.assert_close(load_file(out / "model.safetensors"), saved, rtol=0, atol=0)
    assert len(facts["history"]) == 3
    assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines() if "loss" in line]
    assert pl.read_parquet(out / "telemetry.parquet").filter(part="train").height == sum(x["rows"] for x in facts["history"])


@pytest.mark.parametrize("parallel", BOTH)
def test_what_is_saved_in_bfloat16_is_what_was_evaluated(parallel, place):
    first, second = found(place, f"narrow-{parallel}")
    assert_frame_equal(first, second)
    held_out = rows_of("text")[1].with_columns(part=pl.lit("test"))
    model = str(place / f"narrow-{parallel}")
    again = evaluate(held_out, model=model, generate=0, bootstrap=100, device="cpu").per_row.select("row_id", "policy_logp")
    last = first.filter((pl.col("part") == "validation") & (pl.col("step") == 3)).join(again, on="row_id")
    assert last.height == 8
    assert last["logp"].to_list() == pytest.approx(last["policy_logp"].to_list(), abs=1e-4)
    assert as_stored(model, None, ()).dtype == torch.bfloat16


@pytest.mark.parametrize("parallel", BOTH)
def test_what_one_process_computes_wrongly_all_of_them_refuse(parallel, place):
    first, second = found(place, f"nan-{parallel}")
    assert first == second
    assert first[0] == "ModelError"
    assert "loss is not finite" in first[1]


def test_processes_that_would_train_differently_refuse(place):
    first, second = found(place, "different")
    assert first == second
    assert first[0] == "RunError"
    assert "2 processes do not train the same" in first[1]


# --- who computes what ---------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 999), count=st.integers(1, 20), prompts=st.integers(1, 20), size=st.integers(1, 5))
def test_shares_are_whole_prompts_each_once_and_even(seed, count, prompts, size):
    rows = random_rows(count, seed=seed, prompts=prompts, max_length=256)
    sequences, pairs = Sequences(rows), [(row, row) for row in range(count)]
    dealt = split_work(sequences, pairs, size)
    assert len(dealt) == size
    assert sorted(number for share in dealt for number in share) == list(range(count))
    assert all(share == sorted(share) for share in dealt)
    owners = [{sequences.prompt_of[number] for number in share} for share in dealt]
    assert sum(map(len, owners)) == len(set.union(*owners))  # no prompt has two owners


def test_shares_are_even_in_tokens():
    """Prompts of 2, 5, 8, 2, 5, 8 tokens with completions of 1, 3, 5, 7, 9, 11: 3, 8, 13, 9, 14, 19 tokens together, so
    19 | 14,  19 | 14 + 13,  19 + 9 | 27,  28 | 27 + 8,  28 + 3 | 35."""
    dealt = split_work(Sequences(random_rows(6)), [(row, row) for row in range(6)], 2)
    assert dealt == [[0, 3, 5], [1, 2, 4]]


def test_a_pass_without_pairs_gives_nothing_and_a_gradient_of_zero():
    model = tiny_llama(30)
    scorer = Scorer(model, random_rows(4), device=CPU, compute_dtype=torch.float32)
    empty = scorer([])
    assert empty.shape == (0,)
    empty.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
    own, partners = scorer.with_partners([], [])
    assert own.shape == partners.shape == (0,)
    assert scorer.take_work()["requested_tokens"] == 0


# --- what is refused before anything is computed -------------------------------------------------------------------------


def test_processes_that_do_not_know_of_each_other_refuse(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(SettingError, match="4 processes, but they do not know of each other"):
        current_processes("auto", CPU)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimizer": "adamw_8bit"}, "optimizer 'adamw_8bit' cannot be shared out"),
        ({"lora": {"quantize": "4bit"}}, "4 bits cannot be shared out"),
        ({"trainable_layers": 1}, "give activation_cache_mb=0"),
    ],
)
def test_settings_that_shared_weights_do_not_go_with_are_refused(changed, message):
    settings = {"optimizer": "adamw", "lora": None, "trainable_layers": None, "activation_cache_mb": 2000.0}
    check_can_shard(settings)
    with pytest.raises(SettingError, match=message):
        check_can_shard(settings | changed)


# --- the command line ----------------------------------------------------------------------------------------------------


def torchrun(*words, cache, program=("-m", "ktodata.train")):
    # standalone: a port that is free, whatever else runs on the machine
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(SIZE), *program]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "KTODATA_CACHE": str(cache)}
    return subprocess.run([*launcher, *map(str, words)], env=environment, capture_output=True, text=True, check=False)


# what `python -m ktodata.train` does, and then which threads are left, where Linux keeps their names
TRAINS = """
import os
import sys
from pathlib import Path

from ktodata.train import __main__

place = sys.argv.pop(1)
try:
    __main__.main()
finally:
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    Path(place, os.environ["RANK"]).write_text(" ".join(names))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the names of threads where Linux keeps them")
def test_torchrun_trains_on_all_processes_and_one_of_them_speaks_and_no_thread_outlives_them(folder, tmp_path):
    """Python, when it ends, aborts on some threads of a group that do: "terminate called without an active exception"."""
    script, threads = tmp_path / "trains.py", tmp_path / "threads"
    script.write_text(TRAINS)
    threads.mkdir()
    options = [f"--set={name}={value}" for name, value in BASE.items()]
    words = (folder / "text", "--model", folder / "llama", "--out", tmp_path / "out", *options)
    done = torchrun(threads, *words, cache=tmp_path, program=(script,))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 updates in 2 epochs") == 1
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (facts["processes"], facts["parallel"]) == (SIZE, "ddp")
    names = [path.read_text() for path in threads.iterdir()]
    assert len(names) == SIZE
    assert not any("gloo" in name for name in names), names


def test_torchrun_says_an_error_once(folder, tmp_path):
    done = torchrun(folder / "nowhere", "--model", folder / "llama", "--out", tmp_path / "out", cache=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("EmptyDataError: ") == 1


def test_the_command_without_torchrun_is_one_process(folder, tmp_path):
    words = [folder / "text", "--model", folder / "llama", "--out", tmp_path / "out", "--set", "train.max_steps=1", "--quiet"]
    __main__.app([str(word) for word in words], standalone_mode=False)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["processes"] == 1
