"""Against ESPnet's own models, built and run by its tasks."""

import resource
import shutil
import zipfile

import pytest
import torch
import yaml
from espnet_experiments import CONVS, HUBERT, SSL, edit_config, task_class, write_experiment

from espnet_star.encoders import Want
from espnet_star.errors import StarError
from espnet_star.outputs import frame_count
from espnet_star.teachers import build_teacher, zoo

CASES = [("ssl", case) for case in SSL] + [("hubert", case) for case in HUBERT]
every_case = pytest.mark.parametrize(("task", "case"), CASES)
NO_MAPS = {"e_branchformer-fast"}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Folder of a case, written once."""
    made = {}

    def make(task, case):
        if case not in made:
            options = (SSL if task == "ssl" else HUBERT)[case]
            made[case] = write_experiment(task, options, tmp_path_factory.mktemp("exp") / case)
        return made[case]

    return make


@pytest.fixture
def copy(experiment, tmp_path):
    """A copy of an experiment to break."""

    def make(task="ssl", case="transformer"):
        return shutil.copytree(experiment(task, case), tmp_path / "copy")

    return make


def espnet_states(task, folder, speech):
    """All states of one utterance as ESPnet computes them, index 0 first."""
    name, module = task_class(task)
    file = folder / "valid.loss.ave.pth"
    model, _ = getattr(module, name).build_model_from_file(folder / "config.yaml", file)
    lengths, first = torch.tensor([speech.shape[1]]), []

    def keep(_module, args):
        first.append(args[0][0] if isinstance(args[0], tuple) else args[0])

    model.eval()
    with torch.no_grad():
        if task == "ssl":
            handle = model.encoder.encoders[0].register_forward_pre_hook(keep)
            last, states, _ = model.inference_encode(speech.clone(), lengths)
            handle.remove()
            return [first[0], *states[:-1], last]
        if model.normalize is not None:
            speech, _ = model.normalize(speech.clone(), lengths)
        wav2vec2 = model.encoder.hubert_pretrain_model.wav2vec2
        handle = wav2vec2.encoder.transformer.layers[0].register_forward_pre_hook(keep)
        states, _ = wav2vec2.extract_features(speech)
        handle.remove()
        last, _ = wav2vec2(speech)
    return [first[0], *states[:-1], last]


@every_case
def test_hidden_states_are_those_of_espnet(task, case, experiment):
    """Fails if a part is left out, masked, in training mode or not filled in."""
    folder = experiment(task, case)
    speech = 0.05 * torch.randn(1, 9000) + 0.1
    teacher = build_teacher(folder)
    assert teacher.conf == {"kind": f"espnet_{task}", "model_file": "valid.loss.ave.pth"}
    assert teacher.shape.pre_norm is ("pre-norm" in case)
    assert (teacher.shape.layers, teacher.shape.width) == (3, 16)
    ours = teacher.encode(speech, torch.tensor([9000]))
    assert ours.lengths.tolist() == [27]
    for a, b in zip(ours.hidden_states, espnet_states(task, folder, speech), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["transformer", "e_branchformer-relative", "conformer"])
def test_attention_maps_are_those_of_espnet(case, experiment):
    folder, speech = experiment("ssl", case), torch.randn(1, 6000)
    name, module = task_class("ssl")
    file = folder / "valid.loss.ave.pth"
    model, _ = getattr(module, name).build_model_from_file(folder / "config.yaml", file)
    with torch.no_grad():
        model.eval().inference_encode(speech.clone(), torch.tensor([6000]))
    ours = build_teacher(folder).encode(speech, torch.tensor([6000]), Want(attentions=True))
    layers = model.encoder.encoders
    assert ours.attentions is not None and len(ours.attentions) == len(layers)
    for maps, layer in zip(ours.attentions, layers, strict=True):
        theirs = getattr(layer, "self_attn", None) or layer.attn
        torch.testing.assert_close(maps, theirs.attn, atol=1e-5, rtol=1e-5)


@every_case
@pytest.mark.parametrize("attentions", [False, True])
def test_an_utterance_gets_the_same_in_a_batch_as_alone(task, case, attentions, experiment, batch):
    teacher = build_teacher(experiment(task, case))
    if attentions and case in NO_MAPS:
        with pytest.raises(StarError, match="has no attention maps; remove the loss"):
            teacher.encode(*batch, Want(attentions=True))
        return
    speech, lengths = batch
    together = teacher.encode(speech, lengths, Want(attentions=attentions))
    assert torch.equal(together.lengths, frame_count(lengths))
    assert together.hidden_states[0].shape[1] == frame_count(torch.tensor(speech.shape[1]))
    for row, size in enumerate(lengths.tolist()):
        alone = teacher.encode(
            speech[row : row + 1, :size], lengths[row : row + 1], Want(attentions=attentions)
        )
        n = int(together.lengths[row])
        for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(a[row, :n], b[0], atol=1e-4, rtol=1e-4)
        for a, b in zip(together.attentions or (), alone.attentions or (), strict=True):
            torch.testing.assert_close(a[row, :, :n, :n], b[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(b.sum(-1), torch.ones(b.shape[:3]))


def test_a_long_waveform_is_normalized_in_linear_memory(experiment):
    """Fails if ESPnet's mask of samples by samples (3.7 GB here) is made."""
    teacher = build_teacher(experiment("hubert", "torchaudio-pre-norm"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    teacher.encode(torch.randn(1, 60000), torch.tensor([60000]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1e6  # kB


def test_frozen_and_close_in_bfloat16(experiment, processor):
    exact = build_teacher(experiment("ssl", "e_branchformer"))
    rough = build_teacher(experiment("ssl", "e_branchformer"), dtype="bfloat16").train()
    assert not any(module.training for module in rough.modules())
    assert not any(parameter.requires_grad for parameter in rough.parameters())
    inputs = torch.randn(1, 8000), torch.tensor([8000])
    a, b = (side.encode(*inputs).hidden_states[-1] for side in (exact, rough))
    assert b.dtype == torch.float32
    assert (a - b).norm() < 0.05 * a.norm()
    assert torch.equal(a, b) == (rough.dtype == torch.float32)
    assert processor == "this processor" or rough.dtype == torch.float32


def last_state(name, **conf):
    speech = torch.randn(1, 4000, generator=torch.Generator().manual_seed(1))
    return build_teacher(name, **conf).encode(speech, torch.tensor([4000])).hidden_states[-1]


def test_which_model_file(copy):
    """Fails if another than the named, or than the experiment's best, is taken."""
    folder = copy()
    average = folder / "valid.loss.ave.pth"
    expected = last_state(folder)
    state = torch.load(average, weights_only=True)
    torch.save({key: 1.5 * value for key, value in state.items()}, folder / "latest.pth")
    assert torch.equal(last_state(folder), expected)
    other = last_state(folder / "latest.pth")
    assert not torch.equal(other, expected)
    assert torch.equal(last_state(folder, model_file="latest.pth"), other)
    assert torch.equal(last_state(folder / "config.yaml"), expected)
    average.rename(folder / "valid.acc.ave_3best.pth")
    (folder / "valid.acc.ave.pth").symlink_to("valid.acc.ave_3best.pth")
    edit_config(folder, best_model_criterion=[["valid", "acc", "max"]])
    assert build_teacher(folder).conf["model_file"] == "valid.acc.ave_3best.pth"
    assert torch.equal(last_state(folder), expected)
    # A checkpoint of the trainer holds the model among other states.
    torch.save({"model": state, "optimizers": [{"lr": 0.1}]}, folder / "checkpoint.pth")
    assert torch.equal(last_state(folder, model_file="checkpoint.pth"), expected)


def packed(folder, path, **members):
    meta = {"espnet": "202511", "python": "3.11", "torch": "2.12", "timestamp": 1.0}
    meta["yaml_files"] = {"ssl_train_config": "exp/config.yaml"}
    meta["files"] = {"ssl_model_file": "exp/valid.loss.ave.pth"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.yaml", yaml.safe_dump(meta))
        for name in ("config.yaml", "valid.loss.ave.pth"):
            archive.write(folder / name, f"exp/{name}")
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_a_pack_and_its_folder(experiment, tmp_path):
    folder = experiment("ssl", "e_branchformer")
    path = packed(folder, tmp_path / "pack.zip")
    expected = last_state(folder)
    assert torch.equal(last_state(path), expected)
    assert build_teacher(path).conf == {"kind": "espnet_ssl"}
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert torch.equal(last_state(tmp_path / "unpacked"), expected)
    with pytest.raises(StarError, match="is a pack, which holds one model; omit model_file"):
        build_teacher(path, model_file="latest.pth")


def test_espnets_own_pack(experiment, tmp_path, monkeypatch):
    from espnet2.bin.pack import main

    folder = experiment("ssl", "transformer")
    monkeypatch.chdir(folder.parent)  # the pack keeps the names that it is given
    command = ["ssl", "--outpath", str(tmp_path / "own.zip")]
    command += ["--ssl_train_config", f"{folder.name}/config.yaml"]
    command += ["--ssl_model_file", f"{folder.name}/valid.loss.ave.pth"]
    main(cmd=command)
    assert torch.equal(last_state(tmp_path / "own.zip"), last_state(folder))


def test_a_model_of_the_hub(experiment, tmp_path, monkeypatch):
    """The network alone is played: the hub's folder is what snapshot_download would leave."""
    folder = experiment("ssl", "transformer")
    with zipfile.ZipFile(packed(folder, tmp_path / "pack.zip")) as archive:
        archive.extractall(tmp_path / "snapshot")
    asked = []
    monkeypatch.setattr(zoo, "hf_hub_download", lambda *args: asked.append(args))
    monkeypatch.setattr(zoo, "download", lambda name: tmp_path / "snapshot")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(last_state("somebody/ssl"), last_state(folder))
    assert asked == [("somebody/ssl", "meta.yaml")]


def test_a_model_of_the_zoo(experiment, tmp_path, monkeypatch):
    """A name of ESPnet's table is asked of its downloader, which only brings the archive."""
    path = packed(experiment("ssl", "transformer"), tmp_path / "pack.zip")
    downloader = pytest.importorskip("espnet_model_zoo.downloader")
    monkeypatch.setattr(zoo, "_urls", lambda: {"me/model": "https://zenodo.org/record/1/a.zip"})
    monkeypatch.setattr(downloader.ModelDownloader, "__init__", lambda self: None)
    monkeypatch.setattr(downloader.ModelDownloader, "download", lambda self, name, quiet: str(path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert torch.equal(last_state("me/model"), last_state(path))


def refuses(name, *parts, **conf):
    with pytest.raises(StarError) as caught:
        build_teacher(name, **conf)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_no_config(copy):
    folder = copy()
    (folder / "config.yaml").unlink()
    refuses(folder, str(folder), "has no config.yaml", "copy both")
    refuses(folder / "valid.loss.ave.pth", "has no config.yaml")


def test_config_cut_short(copy):
    folder = copy()
    (folder / "config.yaml").write_text("loss: [a, {b")
    refuses(folder, "config.yaml is not plain YAML")


@pytest.mark.parametrize(
    ("signs", "what"),
    [
        ({"ctc_conf": {}, "decoder_conf": {}}, "that of speech recognition"),
        ({"teacher": "x", "losses": []}, "that of a distillation"),
        ({}, "not that of self-supervised training"),
    ],
)
def test_another_task(signs, what, copy):
    folder = copy()
    edit_config(folder, loss="REMOVED", **signs)
    refuses(folder, str(folder / "config.yaml"), what, "SSLTask or HubertTask")


def test_the_other_kind(copy):
    refuses(copy(), "of ESPnet's ssl task", "kind=espnet_ssl", kind="espnet_hubert")


def test_no_model_file(copy):
    folder = copy()
    (folder / "valid.loss.ave.pth").rename(folder / "7epoch.pth")
    refuses(folder, "valid.loss.ave.pth, valid.acc.ave.pth", "it has 7epoch.pth", "model_file")
    refuses(folder, "none of nothing.pth", model_file="nothing.pth")
    refuses(folder / "7epoch.pth", "name two files", model_file="latest.pth")


def test_missing_and_unknown_weights(copy):
    path = copy() / "valid.loss.ave.pth"
    state = torch.load(path, weights_only=True)
    lost = state.pop("encoder.encoders.1.norm1.weight")
    torch.save(state, path)
    refuses(path.parent, "does not fit", "it lacks encoder.encoders.1.norm1.weight")
    state |= {"encoder.encoders.1.norm1.weight": lost, "encoder.more": lost}
    torch.save(state, path)
    refuses(path.parent, "it also holds encoder.more")
    state["encoder.encoders.1.norm1.weight"] = state.pop("encoder.more")[:3]
    torch.save(state, path)
    refuses(path.parent, "does not fit", "size mismatch for encoder.encoders.1.norm1.weight")
    # A head that no hidden state passes may be gone.
    state["encoder.encoders.1.norm1.weight"] = lost
    torch.save({key: v for key, v in state.items() if not key.startswith("losses")}, path)
    build_teacher(path.parent)


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_weights_cut_short(kept, copy):
    path = copy() / "valid.loss.ave.pth"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refuses(path.parent, "valid.loss.ave.pth is not a complete model file", "copy it again")


@pytest.mark.parametrize("pack", [False, True])
def test_code_in_weights_is_not_run(pack, copy, tmp_path):
    folder, mark = copy(), tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return exec, (f"open({str(mark)!r}, 'w')",)

    torch.save({"encoder": Payload()}, folder / "valid.loss.ave.pth")
    name = packed(folder, tmp_path / "pack.zip") if pack else folder
    refuses(name, "valid.loss.ave.pth", "exec")
    assert not mark.exists()


def test_a_pack_that_climbs_out(copy, tmp_path):
    path = packed(copy(), tmp_path / "pack.zip", **{"../out.txt": "here"})
    refuses(path, "a name that climbs out of the folder")
    refuses(path.with_suffix(".tar"), "no such file")


def test_sampling_rate(copy):
    folder = copy()
    front = yaml.safe_load((folder / "config.yaml").read_text())["frontend_conf"]
    edit_config(folder, frontend_conf={**front, "fs": "8k"})
    refuses(folder, "8000 Hz (frontend_conf.fs in config.yaml)", "16000 Hz")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"shapes": [*CONVS[:-1], [8, 2, 1]]}, ("100 frames/s (hop 160)",)),
        ({"shapes": [*CONVS[:-1], [8, 4, 2]]}, ("sees 720 samples",)),
        ({"norm_mode": "none"}, ("SSLTask cannot build", "Invalid norm mode")),
    ],
)
def test_a_front_that_does_not_fit(changes, parts, copy):
    folder = copy()
    front = yaml.safe_load((folder / "config.yaml").read_text())["frontend_conf"]
    edit_config(folder, frontend_conf=front | changes)
    state = torch.load(folder / "valid.loss.ave.pth", weights_only=True)
    if changes.get("shapes", CONVS)[-1][1] == 4:
        key = "frontend.layers.6.conv.weight"
        state[key] = state[key].repeat(1, 1, 2)
        torch.save(state, folder / "valid.loss.ave.pth")
    refuses(folder, *parts)


def test_an_encoder_that_subsamples(tmp_path):
    options = {**SSL["conformer"], "encoder": "transformer"}
    options["encoder_conf"] = {"output_size": 16, "num_blocks": 1, "input_layer": "conv1d2"}
    refuses(write_experiment("ssl", options, tmp_path / "exp"), "4 frames for 4000", "subsamples")


def test_a_filterbank_front(tmp_path):
    options = {"frontend": "default", "preencoder": None, "encoder_conf": {"num_blocks": 1}}
    refuses(
        write_experiment("ssl", options, tmp_path / "exp"),
        "frontend must be wav2vec_cnn, got DefaultFrontend",
    )


def test_a_hubert_of_filterbanks(tmp_path):
    options = {**HUBERT["torchaudio"], "input_size": None, "frontend": "default"}
    refuses(
        write_experiment("hubert", options, tmp_path / "exp"),
        "does not read waveforms (its frontend is DefaultFrontend)",
        "input_size: 1",
    )


def fairseq_experiment(folder):
    """ESPnet's experiment around fairseq's model, which s3prl's copy stands in for."""
    module = pytest.importorskip("s3prl.upstream.hubert.hubert_model")
    from s3prl.upstream.utils import merge_with_parent
    from small_checkpoints import shake

    values = {"encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_layers": 2}
    values |= {"encoder_attention_heads": 2, "conv_pos": 8, "conv_pos_groups": 2}
    values |= {"conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2"}
    config = merge_with_parent(module.HubertConfig, {**values, "label_rate": 50})
    tasks = merge_with_parent(module.HubertPretrainingConfig, {"sample_rate": 16000})
    model = shake(module.HubertModel(config, tasks, [["a"]]))
    names = {"encoder_embed_dim": "output_size", "encoder_ffn_embed_dim": "linear_units"}
    names |= {"encoder_layers": "num_blocks", "encoder_attention_heads": "attention_heads"}
    options = {names.get(key, key): value for key, value in values.items()}
    edit_config(folder, encoder="hubert_pretrain", encoder_conf=options, model="fairseq")
    weights = {f"encoder.encoder.{key}": value for key, value in model.state_dict().items()}
    torch.save(weights, folder / "valid.loss.ave.pth")
    return model


def test_fairseqs_model_inside_espnets(copy):
    folder = copy("hubert", "torchaudio")
    model = fairseq_experiment(folder)
    teacher, speech = build_teacher(folder), torch.randn(1, 9000)
    with torch.no_grad():
        expected, _ = model.extract_features(speech, padding_mask=None, mask=False)
    ours = teacher.encode(speech, torch.tensor([9000])).hidden_states
    assert len(ours) == 3 and teacher.shape.pre_norm is False
    torch.testing.assert_close(ours[-1], expected[:, :27], atol=2e-5, rtol=2e-5)
    edit_config(folder, input_size=None)
    refuses(folder, "does not read waveforms")
    edit_config(folder, input_size=1, encoder="other")
    refuses(folder, "encoder 'other'", "torchaudio_hubert or hubert_pretrain")


def test_masked_frames_are_those_of_espnet(experiment, monkeypatch):
    """Fails if the experiment's vector was lost, or put behind the positions."""
    folder, speech = experiment("ssl", "transformer"), 0.1 * torch.randn(1, 9000)
    mask = torch.zeros(1, 27, dtype=torch.bool)
    mask[0, 4:12] = True
    monkeypatch.setattr("espnet2.ssl.utils.mask._compute_mask_indices", lambda *_, **__: mask)
    name, module = task_class("ssl")
    file = folder / "valid.loss.ave.pth"
    model, _ = getattr(module, name).build_model_from_file(folder / "config.yaml", file)
    with torch.no_grad():
        theirs = model.eval().encode(speech.clone(), torch.tensor([9000]))["encoder_output"]
    teacher = build_teacher(folder)
    wants = [Want(mask=mask), Want()]
    masked, plain = teacher.encode_all(speech, torch.tensor([9000]), wants)
    for a, b in zip(masked.hidden_states[1:], theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert not torch.equal(masked.state(3), plain.state(3))
    # ESPnet itself fails where the features are not as wide as the vector.
    assert not build_teacher(experiment("ssl", "e_branchformer-relative")).masks


def test_torchaudios_vector_is_found(experiment):
    folder = experiment("hubert", "torchaudio")
    weights = torch.load(folder / "valid.loss.ave.pth")
    (vector,) = (value for key, value in weights.items() if key.endswith("mask_embedding"))
    teacher = build_teacher(folder)
    assert teacher.masks and torch.equal(teacher.mask_vector, vector)
