"""SUPERB's ten tasks, as s3prl implements them.

Nine are classes of ``s3prl.problem``, run by ``python -m s3prl.main CLASS``: they carry
their own configuration, resume by themselves and write their results to a YAML file. Query
by example is there only in s3prl's first implementation, ``s3prl.run_downstream``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# What a task needs of s3prl's environment; ``probe_script.py`` tries each of them.
S3PRL, UPSTREAM, FIRST, SOX, INFO, PANDAS = (
    "problem",
    "upstream",
    "run_downstream",
    "sox_effects",
    "torchaudio_info",
    "pandas_iteritems",
)
CUDA = "cuda"
_BASIC = (S3PRL, UPSTREAM)
_VOX = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt"


@dataclass(frozen=True)
class Task:
    """One task of SUPERB.

    Attributes:
        title: What it is.
        problem: Class of ``s3prl.problem``, empty for query by example.
        data: Key of ``prepare_data`` and the corpus that it names.
        result: YAML file with the test scores, from the run's folder.
        metrics: Column of the table and the key of that file.
        scale: What turns s3prl's numbers into the table's.
        needs: What must work in s3prl's environment.
        folds: Values of ``prepare_data.test_fold``, each a run of its own.
        downloads: What s3prl fetches when it prepares the data.
        lists: Those of them that a failed download leaves empty, under ``~/.cache/s3prl``.
    """

    title: str
    problem: str
    data: Mapping[str, str]
    result: str
    metrics: Mapping[str, str]
    scale: float = 100.0
    needs: tuple[str, ...] = _BASIC
    folds: tuple[int, ...] = field(default=())
    downloads: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


# Files: where the run() methods of s3prl/problem/{asr,common,asv,diarization}/run.py write
# their results. Keys: reduction() of s3prl/task/speech2text_ctc_task.py,
# utterance_classification_task.py, speaker_verification_task.py; fractions all of them, but
# for the percent of dscore, get_overall_der_from_dscore_file in problem/diarization/util.py.
_TEST = "evaluate/valid_best/test/result.yaml"
_LIBRI = "evaluate/valid_best/test-clean/result.yaml"
TASKS = {
    "pr": Task(
        "phoneme recognition",
        "SuperbPR",
        {"dataset_root": "librispeech"},
        _LIBRI,
        {"pr_per": "per"},
        downloads=("the two lexicons of https://huggingface.co/datasets/s3prl/g2p",),
    ),
    "asr": Task(
        "speech recognition",
        "SuperbASR",
        {"dataset_root": "librispeech"},
        _LIBRI,
        {"asr_wer": "wer"},
    ),
    "ks": Task(
        "keyword spotting",
        "SuperbKS",
        {"gsc1": "speech_commands", "gsc1_test": "speech_commands_test"},
        _TEST,
        {"ks_acc": "accuracy"},
        needs=(*_BASIC, SOX, INFO),
    ),
    "qbe": Task(
        "query by example",
        "",
        {"dataset_root": "quesst14"},
        "score.out",
        {"qbe_mtwv": "maxTWV"},
        scale=1.0,
        needs=(UPSTREAM, FIRST, SOX),
    ),
    "sid": Task(
        "speaker identification",
        "SuperbSID",
        {"dataset_root": "voxceleb1"},
        _TEST,
        {"sid_acc": "accuracy"},
        downloads=(_VOX,),
        lists=("iden_split.txt",),
    ),
    "asv": Task(
        "speaker verification",
        "SuperbASV",
        {"dataset_root": "voxceleb1"},
        "evaluate/test_trial/best_result.yaml",
        {"asv_eer": "EER"},
        needs=(*_BASIC, SOX),
        downloads=(_VOX, "https://openslr.magicdatatech.com/resources/49/voxceleb1_test_v2.txt"),
    ),
    "sd": Task(
        "speaker diarization",
        "SuperbSD",
        {"data_dir": "librimix"},
        "evaluate/valid_best/test/dscore.yaml",
        {"sd_der": "der"},
        scale=1.0,
        downloads=("https://github.com/nryant/dscore (by git clone; dscore: FOLDER saves it)",),
    ),
    "ic": Task(
        "intent classification",
        "SuperbIC",
        {"dataset_root": "fluent_speech_commands"},
        _TEST,
        {"ic_acc": "accuracy"},
        needs=(*_BASIC, PANDAS),
    ),
    "sf": Task(
        "slot filling",
        "SuperbSF",
        {"dataset_root": "snips"},
        _TEST,
        {"sf_f1": "slot_type_f1", "sf_cer": "slot_value_cer"},
    ),
    "er": Task(
        "emotion recognition",
        "SuperbER",
        {"iemocap": "iemocap"},
        _TEST,
        {"er_acc": "accuracy"},
        folds=(0, 1, 2, 3, 4),
        downloads=("the splits of https://huggingface.co/datasets/s3prl/iemocap_split",),
    ),
}
