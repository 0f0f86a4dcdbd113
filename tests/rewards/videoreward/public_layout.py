"""A tiny random model written as the public VideoReward code writes its checkpoints, and its own plain forward pass."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tests.support.plain_likelihood import positions_of

TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
CONTROL += ("<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "Rate the video.\nQuality?\n<|VQ_reward|>\nMotion?\n<|MQ_reward|>\nDoes it show the prompt?\n"
    "Prompt: {text_prompt}\n<|TA_reward|> done"
)
RANK, ALPHA = 4, 6
CONFIG = {
    "data_config": {"eval_dim": ["VQ", "MQ", "TA"], "fps": 2.0, "num_frames": None, "max_frame_pixels": 1600}
    | {"prompt_template_type": "detailed_special", "sample_type": "uniform", "unknown": [1]},
    "training_args": {"learning_rate": 2e-6, "deepspeed": None},
    "model_config": {"model_name_or_path": "Qwen/Qwen2-VL-2B-Instruct", "model_revision": "main", "output_dim": 1}
    | {"use_special_tokens": True, "reward_token": "special", "freeze_vision_tower": False, "loss_type": "btt"},
    "peft_lora_config": {"lora_enable": True, "vision_lora": False, "lora_r": RANK, "lora_alpha": ALPHA}
    | {"lora_target_modules": None, "num_lora_modules": -1, "use_rslora": False},
    "inference_config": {
        f"{name}_{kind}": value
        for name, mean in (("VQ", 3.6757), ("MQ", 1.1646), ("TA", 2.8105))
        for kind, value in (("mean", mean), ("std", mean / 2))
    },
}
ARCHITECTURE = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "model_type": "qwen2_vl",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "vocab_size": 300,  # more than the tokenizer has, as in the public model
    "tie_word_embeddings": True,
    "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    | {"temporal_patch_size": 2, "spatial_merge_size": 2, "initializer_range": 0.3},
}


@dataclass
class PublicModel:
    """The model as its authors hold it: PEFT around transformers' class, special tokens in the vocabulary."""

    model: Any
    head: torch.Tensor
    tokenizer: Any
    config: dict[str, Any]

    def scores(self, text: str, clip: Any) -> torch.Tensor:
        """Scores of a clip and the whole text behind it, in the order of the special tokens' numbers."""
        ids = torch.tensor([[*clip.token_ids.tolist(), *self.tokenizer(text)["input_ids"]]])
        times, rows, columns = (int(number) for number in clip.vision["grid"][0])
        blocks = [((times, rows // 2, columns // 2), 1.0)]
        positions = positions_of([self.model.config.video_token_id], ids[0].tolist(), blocks)
        with torch.no_grad():
            hidden = self.model.base_model.model.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=positions[:, None],
                pixel_values_videos=torch.from_numpy(clip.vision["patches"]),
                video_grid_thw=torch.from_numpy(clip.vision["grid"]),
            ).last_hidden_state[0]
        numbers = self.tokenizer.convert_tokens_to_ids(list(TOKENS))
        states = torch.stack([hidden[ids[0] == number][0] for number in numbers])
        outputs = states @ self.head.T
        return outputs.diagonal() if len(self.head) > 1 else outputs[:, 0]

    def state(self) -> dict[str, torch.Tensor]:
        """The state by the names of transformers before 4.52, as the published file has them."""
        names = {"base_model.model.model.visual.": "base_model.model.visual."}
        names["base_model.model.model.language_model."] = "base_model.model.model."
        state = {}
        for name, weight in self.model.state_dict().items():
            old = next(
                (before + name.removeprefix(today) for today, before in names.items() if name.startswith(today)), name
            )
            state[old] = weight.detach().clone()
        return {**state, "base_model.model.rm_head.weight": self.head}


def make_model(*, separate: bool = False, tied: bool = True) -> PublicModel:
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2VLForConditionalGeneration

    tokenizer = _tokenizer()
    image, video, start, end = tokenizer.convert_tokens_to_ids([*CONTROL[-2:], *CONTROL[3:5]])
    ids = {"image_token_id": image, "video_token_id": video, "vision_start_token_id": start, "vision_end_token_id": end}
    config = {**ARCHITECTURE, **ids, "tie_word_embeddings": tied}
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration._from_config(_architecture(config)).eval()
    tokenizer.add_special_tokens({"additional_special_tokens": list(TOKENS)})
    model.resize_token_embeddings(len(tokenizer))
    assert len(model.get_input_embeddings().weight) == len(tokenizer) < ARCHITECTURE["vocab_size"]
    layers = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=rf".*language_model\..*\.({layers})", lora_dropout=0.05)
    model = get_peft_model(model, lora).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name or name.endswith("bias"):
                weight.copy_(0.2 * torch.randn(weight.shape, generator=random))
    head = torch.randn((3 if separate else 1, ARCHITECTURE["hidden_size"]), generator=random)
    return PublicModel(model, head, tokenizer, config)


def write_public(folder: Path, made: PublicModel, *, adapter: bool = False, **config: Any) -> Path:
    """Write the public layout, and the base model in ``folder/base``; return the folder of the checkpoint."""
    place = folder / "published"
    checkpoint = place / "checkpoint-12"
    checkpoint.mkdir(parents=True)
    sections = {name: {**section, **config.get(name, {})} for name, section in CONFIG.items()}
    sections["model_config"]["output_dim"] = len(made.head)
    (place / "model_config.json").write_text(json.dumps(sections))
    made.tokenizer.save_pretrained(checkpoint / "tokenizer")
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text(json.dumps(made.config))
    state = made.state()
    if not adapter:
        torch.save(state, checkpoint / "model.pth")
        return place
    lora = {name.replace(".default", ""): weight for name, weight in state.items() if ".lora_" in name}
    trained = (".visual.", ".embed_tokens.", ".rm_head.", ".input_layernorm.")
    rest = {name: weight for name, weight in state.items() if any(part in name for part in trained)}
    save_file(lora, checkpoint / "adapter_model.safetensors")
    torch.save(rest, checkpoint / "non_lora_state_dict.pth")
    base = made.model.unload()
    base.resize_token_embeddings(made.config["vocab_size"])
    with torch.no_grad():
        for name, weight in base.named_parameters():  # what was trained is not the base model's
            if any(part in name for part in trained) or "visual" in name:
                weight.zero_()
    base.save_pretrained(folder / "base")
    (folder / "base" / "config.json").write_text(json.dumps(made.config))
    return place


def frames(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 24, 40, 3), dtype=np.uint8)


def _architecture(config: dict[str, Any]) -> Any:
    from transformers import Qwen2VLConfig

    return Qwen2VLConfig(**{name: value for name, value in config.items() if name != "model_type"})


def _tokenizer() -> Any:
    """A tokenizer of bytes with Qwen's control tokens."""
    from tokenizers import Tokenizer, decoders, models
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(models.BPE({byte: at for at, byte in enumerate(sorted(ByteLevel.alphabet()))}, []))
    built.pre_tokenizer, built.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    built.add_special_tokens(list(CONTROL))
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<|endoftext|>", eos_token="<|im_end|>")
