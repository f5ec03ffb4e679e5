"""One training in several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.errors import LaunchError
from finetune.launching import FSDP, Launch, run_line
from finetune.run_record import read_run_record
from finetune.training import train_adapter
from tests.finetune.tiny import questions
from tests.finetune.two_processes import plan


@pytest.mark.slow
def test_two_processes_train_what_one_trains_with_twice_the_batch(
    pocket_like: Path, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two CPU processes share out the data, stay equal, write one adapter, and lose what one process would lose."""
    monkeypatch.chdir(repository)
    output = tmp_path / "adapters" / "two"
    line = Launch(2).line(["tests.finetune.two_processes", str(pocket_like), str(output)])
    assert run_line(line) == 0
    ranks = [json.loads((output.parent / f"rank-{rank}.json").read_text()) for rank in range(2)]
    seen = [{tuple(ids) for ids in rank["seen"][:2]} for rank in ranks]
    assert len(seen[0]) == len(seen[1]) == 2
    assert not seen[0] & seen[1], "in one pass no example goes to both processes"
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["shown"] == [1, 2, 3, 4]
    assert ranks[1]["shown"] == []
    assert all(rank["whole"] for rank in ranks), "no process goes on before the adapter is written"
    assert [path.name for path in sorted(output.parent.iterdir())] == ["rank-0.json", "rank-1.json", "two"]
    record = read_run_record(output)
    assert record.processes == 2
    assert record.steps == 4
    alone = train_adapter(plan(str(pocket_like), 2), questions(), tmp_path / "alone", device="cpu")
    assert [loss for _, loss in record.losses] == pytest.approx([loss for _, loss in alone.losses], abs=1e-4)


@pytest.mark.slow
def test_processes_with_a_time_limit_stop_together(pocket_like: Path, tmp_path: Path, repository: Path) -> None:
    """One that takes longer over the general questions ends at the same step as the other, and none waits for ever."""
    output = tmp_path / "timed"
    line = Launch(2).line(["tests.finetune.two_timed", str(pocket_like), str(output)])
    command = [sys.executable, "-m", "accelerate.commands.launch", *line[2:]]
    launched = subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True)
    try:
        said = launched.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        launched.terminate()  # which ends the processes that it started as well
        launched.wait(60)
        pytest.fail("the processes wait for each other")
    assert launched.returncode == 0, said
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["steps"] == ranks[1]["steps"] > 5
    assert ranks[0]["stopped"] == ranks[1]["stopped"] == "time"
    assert read_run_record(output).forgetting == ranks[0]["forgetting"]


def test_the_line_names_machines_and_their_meeting_point() -> None:
    """Processes of all machines are counted together; the port has a default."""
    line = Launch(8, nodes=2, node=1, meeting_point="10.0.0.1", precision="bf16").line(["m", "train", "pocket"])
    text = " ".join(line)
    assert text.startswith("accelerate launch --multi_gpu --num_processes 16 --num_machines 2 --machine_rank 1")
    assert "--mixed_precision bf16" in text
    assert text.endswith("--main_process_ip 10.0.0.1 --main_process_port 29500 --module m train pocket")
    assert "--main_process_port 4" in " ".join(Launch(1, nodes=2, meeting_point="[::1]:4").line(["m"]))


def test_accelerate_understands_the_line_of_a_shared_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed by accelerate itself, the line gives FSDP version 2 with all that is said of it."""
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    parsed = launch_command_parser().parse_args(Launch(2, sharded=True, precision="bf16").line(["m", "train"])[2:])
    assert (parsed.use_fsdp, parsed.module, parsed.training_script) == (True, True, "m")
    assert parsed.training_script_args == ["train"]
    parsed.use_cpu = False
    for name, value in prepare_multi_gpu_env(parsed).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == FSDP["fsdp_version"] == 2
    assert plugin.reshard_after_forward
    assert plugin.state_dict_type.name == FSDP["fsdp_state_dict_type"]


def test_a_model_is_not_shared_out_on_cpus_in_silence(
    pocket_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accelerate passes its own setting over there; before anything is loaded, this says so."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(LaunchError, match="on GPUs only: leave --sharded out"):
        train_adapter(plan(str(pocket_like), 1), questions(), tmp_path / "adapter", device="cpu")
    assert not list(tmp_path.iterdir())


def test_all_that_is_wrong_with_a_launch_is_said_at_once() -> None:
    """A node beyond the last, no meeting point and a single process are errors with their mend."""
    with pytest.raises(LaunchError, match=r"numbered from 0; several machines need --meeting-point"):
        Launch(2, nodes=2, node=2)
    with pytest.raises(LaunchError, match="--processes"):
        Launch(1)
    with pytest.raises(LaunchError, match="not a number"):
        Launch(2, meeting_point="host:port")


@pytest.mark.slow
def test_a_process_that_fails_fails_the_launch(capfd: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1, and the launcher adds no traceback of its own to what the process said."""
    assert run_line(Launch(2).line(["comparison_app.cli", "train", "no-such-recipe", "--corpus", "/nowhere"])) == 1
    said = capfd.readouterr().err
    assert "versus: error:" in said
    assert "Traceback" not in said


WAITING = """
from finetune.launching import Launch, run_line
wait = ["-n1", "-r1", "-s", "import time", "print('waiting', flush=True); time.sleep(60)"]
raise SystemExit(run_line(Launch(2).line(["timeit", *wait])))
"""


@pytest.mark.slow
def test_ctrl_c_ends_a_launch_without_an_error_of_its_own(repository: Path) -> None:
    """Each process has said what is left of its training: the launcher ends with exit code 1."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert launcher.stdout is not None
    assert [launcher.stdout.readline() for _ in range(2)] == ["waiting\n"] * 2
    os.killpg(launcher.pid, signal.SIGINT)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 1, errors
    assert "SignalException" not in errors
