"""Command lines of ESPnet's own tasks on tiny data."""

from star_runs import training

FEW = ["--max_epoch", "1", "--optim", "adam", "--optim_conf", "lr=0.01"]


def asr_options(data, exp):
    options = training(data, exp, *FEW, "--token_type", "char", "--token_list", data / "tokens")
    for part in ("train", "valid"):
        options += [f"--{part}_data_path_and_name_and_type", f"{data}/text,text,text"]
    # Recurrent layers of ESPnet want the longest utterance of a batch first.
    options += ["--batch_type", "sorted", "--init", "xavier_uniform"]
    return [*options, "--model_conf", "ctc_weight=1.0"]


def cls_options(data, exp):
    options = training(data, exp, *FEW, "--token_list", data / "labels")
    for part in ("train", "valid"):
        options += [f"--{part}_data_path_and_name_and_type", f"{data}/label,label,text"]
    return options


def inference(data, out, *extra):
    options = ["--output_dir", str(out), "--ngpu", "0", "--num_workers", "0", *extra]
    return [*options, "--data_path_and_name_and_type", f"{data}/wav.scp,speech,sound"]
