"""Checkpoints in the public layout: scores equal the authors' forward pass, and damage is named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tests.rewards.videoreward.public_layout import (
    ALPHA,
    RANK,
    TEMPLATE,
    TOKENS,
    PublicModel,
    frames,
    make_model,
    write_public,
)

from vr_pipeline.cli import cli
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward.network import load_network
from vr_pipeline.rewards.videoreward.public_checkpoint import ImportOptions, import_checkpoint
from vr_pipeline.rewards.videoreward.public_config import PublicConfig, default_template, network_settings
from vr_pipeline.rewards.videoreward.public_weights import keys_of_state, old_name
from vr_pipeline.rewards.videoreward.settings import read_artifact
from vr_pipeline.storage.atomic import names_and_hashes

PREFIX = "base_model.model."
PROMPTS = ["a cat on a mat", "", "red <|TA_reward|> ball", "a dog, " * 12]


@pytest.fixture(scope="module")
def shared() -> PublicModel:
    return make_model()


@pytest.fixture
def options(tmp_path: Path) -> ImportOptions:
    template = tmp_path / "template.txt"
    template.write_text(TEMPLATE + "\n", encoding="utf-8")
    return ImportOptions(base=str(tmp_path / "base"), template=template)


def compare(made: PublicModel, folder: Path) -> None:
    """Hold scores against the authors' forward pass, clip by clip."""
    network = load_network(folder)
    prepared = [network.family.prepare(frames(count, count), 2.0) for count in (4, 8, 5, 4)]
    found = network.scores(prepared, PROMPTS)
    for clip, prompt, scores in zip(prepared, PROMPTS, found, strict=True):
        # In a prompt the token's name is plain text here; the authors' tokenizer would make a token of it.
        plain = prompt if "<|" not in prompt else "red ball"
        if plain != prompt:
            scores = network.scores([clip], [plain])[0]
        expected = made.scores(TEMPLATE.replace("{text_prompt}", plain), clip)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    # Nothing of this would show if the scores were all alike.
    assert found.std(dim=0).min() > 1e-2


@pytest.mark.parametrize(("separate", "tied"), [(False, True), (True, False)])
def test_scores_are_those_of_the_authors_classes(
    tmp_path: Path, options: ImportOptions, separate: bool, tied: bool
) -> None:
    made = make_model(separate=separate, tied=tied)
    folder = write_public(tmp_path, made)
    target = tmp_path / "ours"
    done = import_checkpoint(folder, target, options)
    compare(made, target)

    # Every pattern of keys of the published file is there.
    state = torch.load(folder / "checkpoint-12" / "model.pth", weights_only=True)
    assert done.weights == len(state)
    kinds = {"visual.", "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "rm_head.weight"}
    kinds |= {f"model.layers.1.{part}" for part in ("input_layernorm.weight", "self_attn.q_proj.base_layer.bias")}
    kinds |= {f"model.layers.0.mlp.down_proj.{part}" for part in ("base_layer.weight", "lora_A.default.weight")}
    assert all(any(name.startswith(PREFIX + kind) for name in state) for kind in kinds)
    artifact = read_artifact(target)
    assert artifact.network.names == ("VQ", "MQ", "TA")
    assert artifact.network.free_of_prompt == ("VQ", "MQ")
    assert artifact.network.head == ("separate" if separate else "shared")
    assert artifact.calibration is not None
    assert artifact.calibration.mean["VQ"] == 3.6757
    assert artifact.calibration.deviation["TA"] == 2.8105 / 2
    judge = json.loads((target / "model" / "judge.json").read_text())
    assert (judge["frames_per_second"], judge["max_pixels"], judge["num_frames"]) == (2.0, 1600, 768)


def test_the_published_architecture_has_the_keys_of_the_published_file() -> None:
    """1,123 keys: Qwen2-VL-2B with low-rank matrices on the seven linear maps of its 28 layers, and the head."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    layers = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
    layers |= {"num_key_value_heads": 2, "vocab_size": 151_660}
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**layers, vision_config={"hidden_size": 1536}))
    names = [PREFIX + old_name(name) for name in model.state_dict()]
    linear = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    adapted = {name.rpartition(".")[0] for name in names if name.split(".")[-2] in linear}
    assert len(adapted) == 7 * 28
    assert len(keys_of_state(names, adapted, PREFIX)) == 1123


def test_the_special_tokens_leave_the_vocabulary(tmp_path: Path, options: ImportOptions, shared: PublicModel) -> None:
    import_checkpoint(write_public(tmp_path, shared), tmp_path / "ours", options)
    network = load_network(tmp_path / "ours")
    tokenizer, rows = network.family.tokenizer, network.family.model.get_input_embeddings().weight
    assert len(tokenizer) == len(rows) == len(shared.tokenizer) - len(TOKENS)
    for token in TOKENS:
        assert tokenizer.decode(tokenizer(token)["input_ids"]) == token
        assert len(tokenizer(token)["input_ids"]) > 1
    for text in ("a <|im_end|> b", "caf\u00e9\n\n  x", TEMPLATE.replace("<|", "<")):
        assert tokenizer(text)["input_ids"] == shared.tokenizer(text)["input_ids"]
    embedding = shared.model.get_input_embeddings().weight
    assert torch.equal(network.token_rows, embedding[shared.tokenizer.convert_tokens_to_ids(list(TOKENS))])
    assert torch.equal(rows, embedding[: len(rows)])


def test_an_adapter_and_what_was_trained_beside_it_make_the_same_model(tmp_path: Path, options: ImportOptions) -> None:
    made = make_model()
    (tmp_path / "full").mkdir()
    full = write_public(tmp_path / "full", made)
    import_checkpoint(
        full, tmp_path / "one", options.__class__(str(tmp_path / "full" / "base"), template=options.template)
    )
    folder = write_public(tmp_path, made, adapter=True)
    done = import_checkpoint(folder, tmp_path / "other", options)
    assert [path.name for path in done.files] == ["adapter_model.safetensors", "non_lora_state_dict.pth"]
    names = ("head.safetensors", "model/model.safetensors")
    for one, other in ((load_file(tmp_path / "one" / name), load_file(tmp_path / "other" / name)) for name in names):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)

    rest = folder / "checkpoint-12" / "non_lora_state_dict.pth"
    state = torch.load(rest, weights_only=True)
    for lost in ("rm_head.weight", "model.embed_tokens.weight", "visual.blocks.1.mlp.fc1.bias"):
        torch.save({name: weight for name, weight in state.items() if name != PREFIX + lost}, rest)
        with pytest.raises(InputError, match=f"'{PREFIX}{lost}' is missing"):
            import_checkpoint(folder, tmp_path / "none", options)
    torch.save(state, rest)
    lora = folder / "checkpoint-12" / "adapter_model.safetensors"
    matrices = load_file(lora)
    gone = f"{PREFIX}model.layers.1.mlp.up_proj.lora_"
    save_file({name: weight for name, weight in matrices.items() if not name.startswith(gone)}, lora)
    with pytest.raises(InputError, match=r"up_proj.lora_A.default.weight' is missing, unlike in other layers"):
        import_checkpoint(folder, tmp_path / "none", options)
    save_file(matrices, lora)
    given = folder / "checkpoint-12" / "adapter_config.json"
    given.write_text(json.dumps({"r": RANK, "lora_alpha": 2 * ALPHA}))
    with pytest.raises(InputError, match=f"'lora_alpha' is {2 * ALPHA}"):
        import_checkpoint(folder, tmp_path / "none", options)
    assert not (tmp_path / "none").exists()


def test_a_second_import_gives_the_same_bytes(tmp_path: Path, options: ImportOptions, shared: PublicModel) -> None:
    folder, target = write_public(tmp_path, shared), tmp_path / "ours"

    def content() -> list[str]:
        import_checkpoint(folder, target, options)
        return names_and_hashes(sorted(path for path in target.rglob("*") if path.is_file()), target)

    assert content() == content()
    assert str(tmp_path) not in "".join(path.read_text() for path in target.rglob("*.json"))
    with pytest.raises(InputError, match="has other content"):
        import_checkpoint(folder, folder, options)


Damage = Callable[[dict[str, torch.Tensor]], Any]


def without(name: str) -> Damage:
    return lambda state: state.pop(PREFIX + name)


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    return lambda state: state.update({PREFIX + name: change(state[PREFIX + name])})


Q_PROJ = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("rm_head.weight"), "'base_model.model.rm_head.weight' is missing"),
        (without("model.embed_tokens.weight"), "embed_tokens.weight' is missing"),
        (without("visual.blocks.0.attn.qkv.bias"), "visual.blocks.0.attn.qkv.bias' is missing"),
        (without("lm_head.weight"), "lm_head.weight' is missing"),
        (without("model.norm.weight"), "model.norm.weight' is missing"),
        (without(f"{Q_PROJ}.base_layer.bias"), f"{Q_PROJ}.base_layer.bias' is missing"),
        (without(f"{Q_PROJ}.lora_A.default.weight"), f"{Q_PROJ}.lora_A.default.weight' is missing"),
        (without(f"{Q_PROJ}.lora_B.default.weight"), f"{Q_PROJ}.lora_B.default.weight' is missing"),
        (
            lambda state: state.update({PREFIX + "value_head.weight": torch.zeros(1, 2)}),
            "value_head.weight' is unknown",
        ),
        (lambda state: state.update({"rm_head.weight": torch.zeros(1, 32)}), "'rm_head.weight' is unknown"),
        (changed(f"{Q_PROJ}.base_layer.weight", lambda w: w[:-1]), r"has shape \[31, 32\] instead of \[32, 32\]"),
        (changed(f"{Q_PROJ}.lora_B.default.weight", lambda w: w.T), r"lora_B.default.weight' has shape \[4, 32\]"),
        (changed(f"{Q_PROJ}.lora_A.default.weight", lambda w: w[:2]), "has rank 2, but lora_r is 4"),
        (changed("rm_head.weight", lambda w: w.repeat(2, 1)), "the head has 2 outputs, but there are 3 dimensions"),
        (changed("rm_head.weight", lambda w: w.repeat(3, 1)), "the head has 3 outputs, but output_dim is 1"),
        (changed("rm_head.weight", lambda w: w[:, :-1]), "has 31 columns, but the model's hidden size is 32"),
        (changed("rm_head.weight", lambda w: w * float("nan")), "not finite numbers"),
        (changed("model.norm.weight", lambda w: w.to(torch.int64)), "not a tensor of numbers"),
        (changed("lm_head.weight", lambda w: w + 1), "differs from the embeddings"),
        (changed("model.embed_tokens.weight", lambda w: w[:-1]), "266 tokens, but the embedding has 265 rows"),
    ],
)
def test_a_damaged_state_is_rejected_by_name(
    tmp_path: Path, options: ImportOptions, shared: PublicModel, damage: Damage, message: str
) -> None:
    folder = write_public(tmp_path, shared)
    path = folder / "checkpoint-12" / "model.pth"
    state = torch.load(path, weights_only=True)
    damage(state)
    torch.save(state, path)
    with pytest.raises(InputError, match=message) as caught:
        import_checkpoint(folder, tmp_path / "ours", options)
    assert caught.value.file is not None or caught.value.field is not None
    assert not (tmp_path / "ours").exists()


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_run_something_is_rejected(
    tmp_path: Path, options: ImportOptions, shared: PublicModel
) -> None:
    folder = write_public(tmp_path, shared)
    path, trace = folder / "checkpoint-12" / "model.pth", tmp_path / "it-ran"
    torch.save({**shared.state(), "extra": Bomb(trace)}, path)
    for _ in range(2):
        with pytest.raises(InputError, match="more than tensors; no code was run"):
            import_checkpoint(folder, tmp_path / "ours", options)
        path.write_bytes(pickle.dumps({"extra": Bomb(trace)}))  # not even a file of torch
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match=r"cannot be read|more than tensors"):
        import_checkpoint(folder, tmp_path / "ours", options)
    assert not trace.exists()


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_files_beside_the_weights_are_checked(tmp_path: Path, options: ImportOptions, shared: PublicModel) -> None:
    folder = write_public(tmp_path, shared)
    config, tokenizer = folder / "model_config.json", folder / "checkpoint-12" / "tokenizer"
    base = tmp_path / "base" / "config.json"
    originals = {path: path.read_text() for path in (config, base)}

    def rejected(message: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=message):
            import_checkpoint(folder, tmp_path / "ours", ImportOptions(**{**vars(options), **changes}))
        for path, original in originals.items():
            path.write_text(original)

    rewrite(config, lambda content: content["inference_config"].pop("MQ_std"))
    rejected("the normalisation lacks 'MQ_std'")
    rewrite(config, lambda content: content["inference_config"].update(TA_std=0))
    rejected("deviation")
    rewrite(config, lambda content: content["peft_lora_config"].pop("lora_alpha"))
    rejected("rank or alpha is missing")
    rewrite(config, lambda content: content["data_config"].update(eval_dim=["VQ", "MQ"]))
    rejected(r"numbers \[263, 264\], not the last of the 266 rows")
    rewrite(config, lambda content: content["data_config"].update(fps=-1))
    rejected("data_config.fps")
    rewrite(config, lambda content: content["peft_lora_config"].update(lora_enable=False))
    rejected("'rm_head.weight' is missing")
    config.write_text("{")
    rejected("cannot be read as JSON")
    rejected("step of 12", step=13)
    rejected("architecture of the base model", base=str(tmp_path / "absent"))
    rewrite(base, lambda content: content.update(num_hidden_layers=3))
    rejected("layers.2.* is missing")
    rewrite(base, lambda content: content.update(model_type="qwen2"))
    rejected("of type 'qwen2'")
    code = {"model_type": "of_its_own", "auto_map": {"AutoConfig": "code.Config"}}
    (base.parent / "code.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')")
    rewrite(base, lambda content: content.update(code))
    rejected("architecture of the base model")
    assert not (tmp_path / "it-ran").exists()
    for text, message in (
        ("no token {text_prompt}", r"it has the token <\|VQ_reward\|> 0 times"),
        (TEMPLATE + "{text_prompt}", "2 times, not once"),
        (TEMPLATE.replace("{text_prompt}", ""), "0 times, not once"),
    ):
        (tmp_path / "wrong.txt").write_text(text)
        rejected(message, template=tmp_path / "wrong.txt")
    rewrite(tokenizer / "tokenizer.json", lambda content: content["added_tokens"].pop())
    rewrite(tokenizer / "tokenizer_config.json", lambda content: content["extra_special_tokens"].pop())
    rejected(r"token <\|TA_reward\|> is missing")


def test_the_command_says_what_it_does(tmp_path: Path, shared: PublicModel) -> None:
    folder = write_public(tmp_path, shared)
    arguments = ["import-reward", str(folder), "--to", str(tmp_path / "ours"), "--base", str(tmp_path / "base")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    for part in ("model.pth is a pickle", "weights_only", "runs no code", "this project's template", "kedro score"):
        assert part in text
    artifact = read_artifact(tmp_path / "ours")
    assert artifact.network.free_of_prompt == ("VQ", "MQ")
    assert "[[prompt]]" in artifact.network.prompt_text
    numbers = tmp_path / "numbers.json"
    numbers.write_text(json.dumps({"mean": {"VQ": 1, "MQ": 2, "TA": 3}, "deviation": {"VQ": 1, "MQ": 1, "TA": 2}}))
    assert CliRunner().invoke(cli, [*arguments, "--calibration", str(numbers), "--dtype", "bfloat16"]).exit_code == 0
    assert read_artifact(tmp_path / "ours").calibration.mean == {"VQ": 1, "MQ": 2, "TA": 3}  # type: ignore[union-attr]
    failed = CliRunner().invoke(cli, [*arguments[:3], str(tmp_path / "new"), "--base", str(tmp_path)])
    assert failed.exit_code != 0
    assert "--base" in failed.output


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_templates_without_tokens_are_the_prompts_text(pooling: str) -> None:
    config = PublicConfig.model_validate({"model_config": {"reward_token": pooling, "use_special_tokens": False}})
    settings = network_settings(config, default_template(config.dimensions, tokens=False), rows=3)
    assert (settings.pooling, settings.head, settings.free_of_prompt) == (pooling, "separate", ())
    assert settings.end.endswith("<|im_start|>assistant\n")
    with pytest.raises(InputError, match="shared head gives all dimensions the same score"):
        network_settings(config, default_template(config.dimensions, tokens=False), rows=1)
