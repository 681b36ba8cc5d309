import importlib
import io
import os
import pickle
import subprocess
import sys

# Its print_config keeps the standard output that it is imported under: not a test's.
import espnet2.tasks.abs_task  # noqa: F401
import pytest
from espnet2.train.trainer import Trainer

from espnet_star import __main__ as dispatcher
from espnet_star import __version__
from espnet_star.bin import espnet_tool
from espnet_star.tasks.espnet import student_task
from espnet_star.tasks.plugin import FRONTEND_TASKS, StandAlone
from espnet_star.tasks.table import TASKS, installed_tasks

PROBE = """
import multiprocessing, sys
from espnet2.tasks import diar

def look(queue):
    from espnet2.tasks.diar import frontend_choices
    queue.put(("star" in frontend_choices.classes, sys.argv[1:]))

def main(cmd):
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
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "espnet_star"])
    return commands


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_help_names_the_tools(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal())
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
def test_a_misspelled_tool_is_one_line(arguments, capsys, started):
    with pytest.raises(SystemExit) as stop:
        dispatcher.main(arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "unknown tool 'star_trian'. Did you mean 'star_train'?" in err
    assert err.count("\n") == 1
    assert not started


def test_a_former_name_leads_to_the_new_one(capsys):
    """Fails if whoever has a script from before is not told how its tools are called now."""
    for name, command in (
        ("star_import_corpus", "star_data import"),
        ("star_onnx", "star_export onnx"),
    ):
        with pytest.raises(SystemExit):
            dispatcher.main([name])
        assert f"unknown tool '{name}'. Did you mean '{command}'?" in capsys.readouterr().err


def test_a_misspelled_subcommand_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        dispatcher.main(["star_data", "chek", "--data_dir", "x"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "unknown subcommand of star_data 'chek'. Did you mean 'check'? Known: check, " in err
    assert err.count("\n") == 1


def test_help_of_a_tool_lists_its_subcommands(capsys):
    """Fails if a subcommand is left out, or says nothing of what it does."""
    for words, texts in (
        (["star_export", "--help"], ("onnx", "Write a student as ONNX files")),
        (["star_data", "import", "--help"], ("usage: star_data import", "--source")),
    ):
        with pytest.raises(SystemExit) as stop:
            dispatcher.main(words)
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert all(text in out for text in texts)


def test_a_look_at_data_needs_no_torch(data_directory):
    """Fails if a check of files waits for imports of what it does not use."""
    code = f"""
import sys
from espnet_star.bin.star_data import main
main(["check", "--data_dir", {str(data_directory)!r}])
assert not {{"torch", "espnet2", "espnet_star.bin.star_data.shards"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("task", FRONTEND_TASKS)
def test_training_tools_take_the_student(task, capsys, monkeypatch):
    """Fails if ESPnet's scripts, run through us, refuse --frontend star."""
    monkeypatch.setattr(sys, "argv", ["espnet_star"])
    tool = {"s2t_ctc": "s2t_train_ctc"}.get(task, f"{task}_train")
    for name, code in (("star", 0), ("stra", 2)):
        with pytest.raises(SystemExit) as stop:
            espnet_tool.run(tool, ["--frontend", name, "--print_config"])
        assert stop.value.code == code
    assert "'star'" in capsys.readouterr().err


@pytest.mark.parametrize("task", FRONTEND_TASKS)
def test_a_worker_finds_the_task_by_its_name(task):
    """Fails if multi-GPU training, for which ESPnet pickles the task, cannot start."""
    made = student_task(task)
    assert issubclass(made, StandAlone)
    assert pickle.loads(pickle.dumps(made.main_worker)).__self__ is made
    assert made.trainer.__mro__.index(Trainer) > 0


def test_the_table_has_every_task_with_a_choice_of_frontends():
    """Fails if a new ESPnet brings a task that takes frontends and nobody notices."""
    for task in set(installed_tasks()) - {"mt", "gan_svs", "gan_tok"}:
        module = importlib.import_module(f"espnet2.tasks.{task}")
        assert (task in FRONTEND_TASKS) == hasattr(module, "frontend_choices"), task
    for task in FRONTEND_TASKS:
        assert hasattr(importlib.import_module(f"espnet2.tasks.{task}"), TASKS[task].name)


TOOL = "espnet_star.bin.espnet_tool"
# What is given, and what Python is started with.
COMMANDS = [
    ("slu_inference --ngpu 0", f"-m {TOOL} slu_inference --ngpu 0"),
    ("-m espnet2.bin.s2t_train --ngpu 0", f"-m {TOOL} s2t_train --ngpu 0"),
    ("-u -m espnet2.bin.lm_train x", f"-u -m {TOOL} lm_train x"),
    ("-m espnet2.bin.lightning_train", f"-m {TOOL} lightning_train"),
    # These build no model: ESPnet's own, at once.
    ("-m espnet2.bin.pack asr", "-m espnet2.bin.pack asr"),
    ("-B -m espnet2.bin.tokenize_text -f 2-", "-B -m espnet2.bin.tokenize_text -f 2-"),
    (
        "aggregate_stats_dirs --skip_sum_stats",
        "-m espnet2.bin.aggregate_stats_dirs --skip_sum_stats",
    ),
    ("-m espnet2.bin.launch -- python3 -u x", "-m espnet2.bin.launch -- python3 -u x"),
    ("-m espnet2.bin.split_scps", "-m espnet2.bin.split_scps"),
    # Python's options before a tool of ours: once more through us, with them.
    ("-u -m espnet2.bin.spk_inference x", "-u -m espnet_star spk_inference x"),
    ("-W ignore -X dev star_train x", "-W ignore -X dev -m espnet_star star_train x"),
    # Before ESPnet's: at once, with them.
    ("-Wignore -Bum espnet2.bin.cls_train", f"-Wignore -Bu -m {TOOL} cls_train"),
    ("-u -mespnet2.bin.asr_train x", f"-u -m {TOOL} asr_train x"),
    # All else is plain Python's.
    ("", ""),
    ("- a b", "- a b"),
    ("-u", "-u"),
    ("-V", "-V"),
    ("-m", "-m"),
    ("-m pip list", "-m pip list"),
    ("-c pass asr_train", "-c pass asr_train"),
    ("-X dev -c pass", "-X dev -c pass"),
    ("local/score.py x", "local/score.py x"),
    ("local/missing x", "local/missing x"),
    ("--check-hash-based-pycs never x.py", "--check-hash-based-pycs never x.py"),
]


@pytest.mark.parametrize(("given", "expected"), COMMANDS)
def test_command_lines_are_read_as_python_reads_them(given, expected, started):
    """Fails if --python "python3 -m espnet_star" breaks ESPnet's scripts, or goes past us."""
    with pytest.raises(SystemExit):
        dispatcher.main(given.split())
    assert started == [expected.split()]


def test_the_options_of_the_python_that_started_us_are_kept(started, monkeypatch):
    monkeypatch.setattr(
        sys, "orig_argv", ["python3", "-u", "-Wignore", "-m", "espnet_star", "x.py"]
    )
    with pytest.raises(SystemExit):
        dispatcher.main(["x.py"])
    assert started == [["-u", "-Wignore", "x.py"]]


def test_a_script_of_any_name_is_run(tmp_path, started, monkeypatch):
    """Fails if a script without .py is an unknown tool."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score").write_text("print(1)")
    with pytest.raises(SystemExit):
        dispatcher.main(["score", "x"])
    assert started == [["score", "x"]]


def test_scripts_and_exit_codes_are_pythons_own():
    """Fails if a script on the standard input is dropped, as show_asr_result.sh has one."""
    run = subprocess.run(
        [sys.executable, "-m", "espnet_star"],
        input="import sys; print(1); sys.exit(7)",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (7, "1\n", "")


@pytest.mark.parametrize(
    ("tool", "tasks"),
    [("slu_inference", ["slu"]), ("s2t_inference", ["s2t", "s2t_ctc"]), ("lid_inference", ["lid"])],
)
def test_a_tool_without_a_module_of_ours_gets_our_classes(tool, tasks, monkeypatch):
    """Fails if decoding with ESPnet's own tools does not know --frontend star."""
    found = [importlib.import_module(f"espnet2.tasks.{task}").frontend_choices for task in tasks]
    for choices in found:
        monkeypatch.setattr(choices, "classes", {})
    espnet_tool.load(tool)
    for choices in found:
        assert choices.classes["star"].__name__ == "StarFrontend"


def test_lightning_trains_tasks_of_ours():
    """Fails if use_lightning does not know the student, or saves a model that needs its folder."""
    pytest.importorskip("lightning")
    espnet_tool.load("lightning_train")
    from espnet2.train.lightning_espnet_model import task_choices

    assert all(issubclass(task, StandAlone) for task in task_choices.values())
    assert "star" in task_choices["cls"].class_choices_list[0].classes


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
    assert "parent True ['diar_probe', '--config', 'x.yaml']" in run.stdout, run.stderr
    assert "worker True ['diar_probe', '--config', 'x.yaml']" in run.stdout, run.stderr
