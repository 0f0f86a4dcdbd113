"""Only safetensors pass."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from vr_pipeline.errors import InputError
from vr_pipeline.model_files import check_model_files


def test_safetensors_pass_also_beside_a_pickle_that_nobody_reads(tmp_path):
    (tmp_path / "vae").mkdir()
    save_file({"weight": np.zeros(3)}, tmp_path / "vae" / "model.safetensors")
    (tmp_path / "vae" / "model.bin").write_bytes(b"pickle")
    (tmp_path / "config.json").write_text("{}")
    check_model_files(tmp_path, field="path")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64, (10**6).to_bytes(8, "little") + b"{}"])
def test_other_content_under_that_name_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        check_model_files(tmp_path, field="path")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "last.pt", "model.ckpt"])
def test_a_part_with_pickled_weights_alone_is_refused(tmp_path, name):
    (tmp_path / "unet").mkdir()
    (tmp_path / "vae").mkdir()
    save_file({"weight": np.zeros(3)}, tmp_path / "vae" / "model.safetensors")
    (tmp_path / "unet" / name).write_bytes(b"pickle")
    with pytest.raises(InputError, match="only safetensors"):
        check_model_files(tmp_path, field="path")
