"""The autoencoder against the principal components of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vr_pipeline.micro_world.clips import render_clips
from vr_pipeline.micro_world.patch_vae import PatchVAE, WanPatchVAE


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return render_clips(192, seed=0, purpose="patches").frames


def pixels(clips: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def test_reconstruction_is_as_good_as_principal_components_get(clips: np.ndarray) -> None:
    from sklearn.decomposition import PCA

    vae = PatchVAE.fit(clips, latent_channels=12)
    video = pixels(clips)
    latents = vae.encode(video).latent_dist.mode()
    assert latents.shape == (192, 12, 2, 2, 2)
    ours = vae.decode(latents).sample

    patches = [
        video[:, :, 4 * time : 4 * time + 4, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].reshape(192, -1)
        for time in range(2)
        for row in range(2)
        for column in range(2)
    ]
    matrix = torch.cat(patches).double().numpy()
    reference = PCA(12, svd_solver="full").fit(matrix)
    expected = reference.inverse_transform(reference.transform(matrix))
    error = float(((ours - video) ** 2).mean())
    assert error == pytest.approx(float(((expected - matrix) ** 2).mean()), rel=1e-4)
    # The same components, each up to its sign, which is fixed so that the largest entry is positive.
    own = vae.components.numpy()
    np.testing.assert_allclose(np.abs((own * reference.components_).sum(axis=1)), 1.0, atol=1e-3)
    assert (own[np.arange(12), np.abs(own).argmax(axis=1)] > 0).all()


def test_all_components_lose_nothing(clips: np.ndarray) -> None:
    vae = PatchVAE.fit(clips, latent_channels=768)
    video = pixels(clips[:8])
    restored = vae.decode(vae.encode(video).latent_dist.mode()).sample
    torch.testing.assert_close(restored, video, rtol=0, atol=1e-3)


@pytest.mark.parametrize("whitening", [0.0, 0.4, 1.0])
def test_latents_have_unit_scale_and_the_asked_for_spread(clips: np.ndarray, whitening: float) -> None:
    vae = PatchVAE.fit(clips, latent_channels=12, whitening=whitening)
    latents = vae.encode(pixels(clips)).latent_dist.mode().transpose(0, 1).flatten(1)
    assert float((latents**2).mean()) == pytest.approx(1.0, rel=1e-3)
    deviations = latents.std(dim=1).log()
    unwhitened = PatchVAE.fit(clips, latent_channels=12, whitening=0.0)
    plain = unwhitened.encode(pixels(clips)).latent_dist.mode().transpose(0, 1).flatten(1).std(dim=1).log()
    slope = float(
        ((deviations - deviations.mean()) * (plain - plain.mean())).sum() / ((plain - plain.mean()) ** 2).sum()
    )
    assert slope == pytest.approx(1.0 - whitening, abs=0.02)


def test_patches_are_disjoint_and_in_their_place(clips: np.ndarray) -> None:
    vae = PatchVAE.fit(clips, latent_channels=12)
    video = pixels(clips[:1])
    changed = video.clone()
    changed[:, :, 4:, 8:, :8] += 0.5
    difference = (vae.encode(changed).latent_dist.mode() - vae.encode(video).latent_dist.mode()).abs().sum(dim=1)[0]
    touched = torch.zeros(2, 2, 2, dtype=torch.bool)
    touched[1, 1, 0] = True
    assert torch.equal(difference > 1e-4, touched)


def test_fitting_twice_and_saving_give_the_same_weights(clips: np.ndarray, tmp_path: Path) -> None:
    first, second = PatchVAE.fit(clips, latent_channels=12), PatchVAE.fit(clips, latent_channels=12)
    first.save_pretrained(tmp_path)
    loaded = PatchVAE.from_pretrained(tmp_path)
    assert loaded.config.latent_channels == 12
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
        assert torch.equal(value, loaded.state_dict()[name])


def test_the_autoencoder_of_the_flow_is_the_same_but_leaves_the_scale_to_the_pipeline(
    clips: np.ndarray, tmp_path: Path
) -> None:
    same = PatchVAE.fit(clips, latent_channels=12)
    WanPatchVAE.fit(clips, latent_channels=12).save_pretrained(tmp_path)
    flow = WanPatchVAE.from_pretrained(tmp_path)
    video = pixels(clips[:4])
    expected = same.encode(video).latent_dist.mode()
    deviations = torch.tensor(flow.config.latents_std).view(1, -1, 1, 1, 1)
    assert float(deviations.max() / deviations.min()) > 1.5
    raw = flow.encode(video).latent_dist.mode()
    torch.testing.assert_close(raw / deviations, expected, rtol=1e-4, atol=1e-4)
    (decoded,) = flow.decode(raw, return_dict=False)
    torch.testing.assert_close(decoded, same.decode(expected).sample, rtol=0, atol=1e-4)
    # The pipeline counts the 8 frames of a clip as one and seven more.
    assert decoded.shape[2] == 1 + flow.config.scale_factor_temporal * (raw.shape[2] - 1)
