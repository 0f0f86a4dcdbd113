"""What the published models need of other packages to read a prompt."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from generator_families import images_for
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator

WORDS = ["red", "ball", "moves", "left", "on", "black", "white", "blue", "cross", "green", "ring", "right"]


def sentencepiece_model() -> bytes:
    """A model of a few words, with the special tokens of T5."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS[at:] + WORDS[:at]) for at in range(len(WORDS))] * 5),
        model_writer=written,
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return written.getvalue()


def with_tokenizer(parameters: GeneratorParameters, folder: Path, model: bytes) -> GeneratorParameters:
    """The same model with a tokenizer folder as CogVideoX has it: spiece.model, and no tokenizer.json."""
    shutil.copytree(parameters.path, folder, ignore=shutil.ignore_patterns("tokenizer"))
    place = folder / "tokenizer"
    place.mkdir()
    (place / "spiece.model").write_bytes(model)
    kind = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "<pad>", "eos_token": "</s>"}
    (place / "tokenizer_config.json").write_text(json.dumps(kind | {"unk_token": "<unk>"}), encoding="utf-8")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index["tokenizer"] = ["transformers", "T5Tokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return parameters.model_copy(update={"path": str(folder)})


@pytest.fixture(scope="module")
def spiece() -> bytes:
    return sentencepiece_model()


def widened(parameters: GeneratorParameters, size: int) -> None:
    """Give the text encoder of a copy so many tokens."""
    from transformers import T5EncoderModel

    place = f"{parameters.path}/text_encoder"
    encoder = T5EncoderModel.from_pretrained(place)
    encoder.resize_token_embeddings(size, mean_resizing=False)
    shutil.rmtree(place)
    encoder.save_pretrained(place)


def test_a_tokenizer_that_is_a_sentencepiece_model_alone_reads_prompts(
    spiece: bytes, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    import sentencepiece

    parameters = with_tokenizer(settings["cogvideox_2b"], tmp_path / "model", spiece)
    widened(parameters, 40)
    generator = load_generator(parameters, ("text_encoder",))
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    prompt = "red ball moves left"
    alone = sentencepiece.SentencePieceProcessor(model_proto=spiece).encode(prompt)
    assert pipeline.tokenizer(prompt).input_ids == [*alone, 1]
    with torch.no_grad():
        padded = torch.tensor([[*alone, 1] + [0] * (generator.text_length - len(alone) - 1)])  # type: ignore[attr-defined]
        expected = pipeline.text_encoder(padded)[0]
    torch.testing.assert_close(generator.encode_prompts([prompt])["prompt_embeddings"], expected)


def test_a_tokenizer_with_more_tokens_than_its_text_encoder_is_rejected(
    spiece: bytes, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    parameters = with_tokenizer(settings["cogvideox_2b"], tmp_path / "model", spiece)
    with pytest.raises(InputError, match="tokens, and the text_encoder knows"):
        load_generator(parameters, ("text_encoder",))


def test_wan_reads_a_prompt_whose_characters_were_mangled_as_it_was_meant(
    settings: dict[str, GeneratorParameters],
) -> None:
    """The pipeline cleans prompts with ftfy where it is installed; without it embeddings would differ."""
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    assert prompt_clean("a cafÃ© &amp; a dog") == "a café & a dog"
    generator = load_generator(settings["wan"], ("text_encoder",))
    meant, mangled = (
        generator.encode_prompts([prompt])["prompt_embeddings"] for prompt in ("red ball\u2026", "red ballâ€¦")
    )
    assert torch.equal(meant, mangled)


def test_control_tokens_in_a_prompt_are_text_to_every_generator(generator: Generator) -> None:
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    tokenizers = [getattr(pipeline, name) for name in ("tokenizer", "tokenizer_2") if hasattr(pipeline, name)]
    seen: list[str] = []
    encode = pipeline.encode_prompt

    def listening(prompt: str | list[str], *more: Any, **options: Any) -> Any:
        seen.extend([prompt] if isinstance(prompt, str) else prompt)
        return encode(prompt, *more, **options)

    pipeline.encode_prompt = listening
    marks = {mark for tokenizer in tokenizers for mark in tokenizer.all_special_tokens if len(mark) > 2}
    marks -= {tokenizer.unk_token for tokenizer in tokenizers if tokenizer.unk_token != tokenizer.eos_token}
    prompts = ["red ball", *(f"red {mark} ball" for mark in sorted(marks))]
    generator.encode_prompts(prompts, images_for(generator.parameters.family, prompts))
    del pipeline.encode_prompt
    assert marks
    assert seen[0] == "red ball"
    for tokenizer in tokenizers:
        for written in seen:
            ids = tokenizer(written, add_special_tokens=False)["input_ids"]
            assert marks.isdisjoint(tokenizer.convert_ids_to_tokens(ids))
