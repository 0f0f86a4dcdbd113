"""Only safetensors pass."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import write_checksums
from vr_pipeline.storage.models import check_model_files, load_complete


def test_safetensors_pass_also_beside_a_pickle_that_nobody_reads(tmp_path):
    (tmp_path / "vae").mkdir()
    save_file({"weight": np.zeros(3)}, tmp_path / "vae" / "model.safetensors")
    (tmp_path / "vae" / "model.bin").write_bytes(b"pickle")
    (tmp_path / "config.json").write_text("{}")
    check_model_files(tmp_path, field="path")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64, (10**6).to_bytes(8, "little") + b"{}"])
def test_other_content_under_that_name_is_rejected(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        check_model_files(tmp_path, field="path")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "last.pt", "model.ckpt"])
def test_a_part_with_pickled_weights_alone_is_rejected(tmp_path, name):
    (tmp_path / "unet").mkdir()
    (tmp_path / "vae").mkdir()
    save_file({"weight": np.zeros(3)}, tmp_path / "vae" / "model.safetensors")
    (tmp_path / "unet" / name).write_bytes(b"pickle")
    with pytest.raises(InputError, match="only safetensors"):
        check_model_files(tmp_path, field="path")


class TestWholeModels:
    """A small language model of transformers and a small autoencoder of diffusers, with weights changed on disk."""

    @pytest.fixture(params=["transformers", "diffusers"])
    def saved(self, request, tmp_path):
        import torch

        torch.manual_seed(0)
        if request.param == "transformers":
            from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

            sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
            sizes |= {"num_key_value_heads": 2, "vocab_size": 12, "tie_word_embeddings": True}
            made, model_class, name = Qwen2ForCausalLM(Qwen2Config(**sizes)), AutoModelForCausalLM, "model"
        else:
            from diffusers import AutoencoderKL

            made = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=2)
            model_class, name = AutoencoderKL, "diffusion_pytorch_model"
        made.save_pretrained(tmp_path)
        return made, model_class, tmp_path / f"{name}.safetensors"

    @staticmethod
    def change(file, change):
        from safetensors.torch import load_file, save_file

        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, metadata={"format": "pt"})

    def test_whole_models_load_as_they_were_saved_tied_weights_included(self, saved):
        made, model_class, file = saved
        loaded = load_complete(model_class, file.parent, field="path")
        assert all((value == made.state_dict()[name]).all() for name, value in loaded.state_dict().items())

    def test_each_missing_weight_is_noticed(self, saved, caplog):
        from safetensors.torch import load_file

        _, model_class, file = saved
        content = file.read_bytes()
        for name in list(load_file(file))[:12]:
            self.change(file, lambda tensors, name=name: tensors.pop(name))
            with pytest.raises(InputError, match=f"'{name}' is missing|'lm_head.weight', are missing") as caught:
                load_complete(model_class, file.parent, field="path")
            assert caught.value.field == "path"
            file.write_bytes(content)
        # The libraries' tables would hide the sentence.
        assert not caplog.text

    def test_unknown_weights_and_other_shapes_are_noticed(self, saved):
        import torch
        from safetensors.torch import load_file

        _, model_class, file = saved
        content = file.read_bytes()
        self.change(file, lambda tensors: tensors.update(other=torch.ones(2), another=torch.ones(2)))
        with pytest.raises(InputError, match="2 weights, such as 'another', are unknown"):
            load_complete(model_class, file.parent, field="path")
        file.write_bytes(content)
        name = min(load_file(file))
        self.change(file, lambda tensors: tensors.update({name: torch.ones(3, 3, 3)}))
        with pytest.raises(InputError, match=f"{name}.*shape"):
            load_complete(model_class, file.parent, field="path")

    def test_a_file_that_is_cut_off_or_longer_is_noticed(self, saved):
        _, _, file = saved
        content = file.read_bytes()
        check_model_files(file.parent, field="path")
        for other in (content[:-5], content + b"0", content[:100]):
            file.write_bytes(other)
            with pytest.raises(InputError, match="no whole safetensors"):
                check_model_files(file.parent, field="path")


def test_a_model_that_this_project_saved_is_verified_by_content(tmp_path):
    save_file({"weight": np.zeros(3)}, tmp_path / "model.safetensors")
    write_checksums(tmp_path)
    check_model_files(tmp_path, field="judge.path")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(InputError, match=r"model\.safetensors, field 'judge\.path': the file is missing or damaged"):
        check_model_files(tmp_path, field="judge.path")
