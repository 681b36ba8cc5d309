import os
import subprocess
import sys

# Its print_config keeps the standard output that it is imported under: not a test's.
import espnet2.tasks.abs_task  # noqa: F401
import pytest

from espnet_star import __main__ as dispatcher
from espnet_star import __version__

PROBE = """
import multiprocessing, sys

def look(queue):
    from espnet2.tasks.diar import frontend_choices
    queue.put(("star" in frontend_choices.classes, sys.argv[1:]))

def main():
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    worker = context.Process(target=look, args=(queue,))
    look(queue)
    worker.start()
    worker.join()
    for who in ("parent", "worker"):
        print(who, *queue.get())
"""
# Python runs a sitecustomize of PYTHONPATH first: it lets espnet2.bin find the probe too.
CUSTOMIZE = """
import pathlib
import espnet2.bin
espnet2.bin.__path__.append(str(pathlib.Path(__file__).parent))
"""


@pytest.fixture
def started(monkeypatch):
    """Commands that the dispatcher would turn into instead of running them."""
    commands = []

    def execute(program, arguments):
        commands.append(arguments[1:])
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execute)
    monkeypatch.setattr(sys, "argv", ["espnet_star"])
    return commands


def test_help_names_the_tools(capsys):
    for arguments in ([], ["--help"]):
        dispatcher.main(arguments)
        out = capsys.readouterr().out
        assert "star_train" in out
        assert "asr_inference" in out
        assert "espnet_tool" not in out


def test_version(capsys):
    dispatcher.main(["--version"])
    assert capsys.readouterr().out == f"espnet_star {__version__}\n"


@pytest.mark.parametrize("arguments", [["star_trian"], ["-m", "espnet2.bin.star_trian"]])
def test_a_misspelt_tool_is_one_line(arguments, capsys, started):
    with pytest.raises(SystemExit) as stop:
        dispatcher.main(arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "unknown tool 'star_trian'. Did you mean 'star_train'?" in err
    assert err.count("\n") == 1
    assert not started


TASKS = ("asr", "asr_transducer", "cls", "spk", "slu", "st", "diar", "enh_s2t")


@pytest.mark.parametrize("task", TASKS)
def test_training_tools_take_the_student(task, started, capsys):
    """Fails if ESPnet's scripts, run through us, refuse --frontend star."""
    command = ["-m", f"espnet2.bin.{task}_train", "--frontend", "star", "--print_config"]
    with pytest.raises(SystemExit) as stop:
        dispatcher.main(command)
    assert stop.value.code == 0
    command[3] = "stra"
    with pytest.raises(SystemExit) as stop:
        dispatcher.main(command)
    assert stop.value.code == 2
    assert "'star'" in capsys.readouterr().err
    assert not started  # in this process: our own bin module


def test_other_commands_go_on_unchanged(started):
    """Fails if --python "python3 -m espnet_star" breaks the rest of ESPnet's scripts."""
    for given, expected in [
        (["slu_inference", "--ngpu", "0"], ["-m", "espnet_star.bin.espnet_tool", "slu_inference"]),
        (["-m", "espnet2.bin.pack", "asr"], ["-m", "espnet_star.bin.espnet_tool", "pack"]),
        (["-m", "pip", "list"], ["-m", "pip"]),
        (["-c", "pass"], ["-c"]),
        (["local/score.py", "x"], ["local/score.py"]),
    ]:
        with pytest.raises(SystemExit):
            dispatcher.main(given)
        assert started[-1] == [*expected, given[-1]] or started[-1] == [*expected, *given[1:]]


@pytest.mark.parametrize("tool", ["slu_inference", "st_train", "enh_s2t_inference", "diar_x"])
def test_a_tool_without_a_module_of_ours_gets_our_classes(tool, monkeypatch):
    """Fails if decoding with ESPnet's own tools does not know --frontend star."""
    import importlib

    from espnet_star.bin.espnet_tool import register_for_tool

    name = {"enh_s2t_inference": "asr"}.get(tool, tool.split("_")[0])
    choices = importlib.import_module(f"espnet2.tasks.{name}").frontend_choices
    monkeypatch.setattr(choices, "classes", {})
    register_for_tool(tool)
    assert choices.classes["star"].__name__ == "StarFrontend"


def test_spawned_workers_get_our_classes_too(tmp_path):
    """Fails if multi-GPU training, which ESPnet spawns, would not know our classes."""
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZE)
    (tmp_path / "diar_probe.py").write_text(PROBE)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-m", "espnet_star", "diar_probe", "--config", "x.yaml"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "parent True ['--config', 'x.yaml']" in run.stdout, run.stderr
    assert "worker True ['--config', 'x.yaml']" in run.stdout, run.stderr
