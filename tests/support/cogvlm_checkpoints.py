"""Checkpoints that bring the code of the stand-in for CogVLM2, as downloaded."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny_judges import PROMPTS, QUESTIONS

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.judges.training.examples import JudgeExample

STAND_IN = Path(__file__).parent / "cogvlm_stand_in"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
KINDS = {
    "cogvlm2_video": ("modeling_cogvlm", "CogVLMVideoForCausalLM"),
    "cogvlm2_image": ("modeling_cogvlm_image", "CogVLMForCausalLM"),
}
"""Family -> the module of its code, and the class in it."""


def cogvlm_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = " ".join([*QUESTIONS, *PROMPTS, "Question: Answer:", *map(str, range(10))])
    words = ["<pad>", "<unk>", "<bos>", "Yes", "yes", "No", "no", *sorted(set(texts.replace(":", " : ").split()))]
    built = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>")


def write_checkpoint(folder: Path, family: str = "cogvlm2_video") -> Path:
    """Write random weights, tokenizer, configuration, and the code that goes with them."""
    import torch

    tokenizer, (module, name) = cogvlm_tokenizer(), KINDS[family]
    code = importlib.import_module(f"{STAND_IN.name}.{module}")
    torch.manual_seed(0)
    getattr(code, name)(code.CogVLMConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in STAND_IN.glob("*.py"):
        shutil.copy(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": "configuration_cogvlm.CogVLMConfig",
        "AutoModelForCausalLM": f"{module}.{name}",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def configuration(path: Path | str, **changes: Any) -> dict[str, Any]:
    return {
        "family": "cogvlm2_video",
        "path": str(path),
        "revision": COMMIT,
        "trust_remote_code": True,
        "device": "cpu",
        **changes,
    }


def training_examples(modality: str, clips: Sequence[Any]) -> tuple[Checklist, list[JudgeExample]]:
    """A checklist of the questions, and twelve answered examples of three clips or images."""
    from vr_pipeline.checklist import checklist_from_mapping
    from vr_pipeline.judges.training.examples import JudgeExample

    sub = {"name": "s", "questions": [{"id": str(at), "text": text} for at, text in enumerate(QUESTIONS)]}
    checklist = checklist_from_mapping(
        {"name": "c", "modality": modality, "dimensions": [{"name": "d", "sub_dimensions": [sub]}]}
    )
    return checklist, [
        JudgeExample(str(at), clips[at % 3], PROMPTS[at % 3], {str(q): (at + q) % 2 == 0 for q in range(5)})
        for at in range(12)
    ]
