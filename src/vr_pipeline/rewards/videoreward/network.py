"""The network: a vision-language model, embeddings of special tokens, and a linear head without bias.

All dimensions are read in one pass over clip and texts, or in two, where the second continues from the cache before the
prompt, so that dimensions before the prompt are exactly equal for all prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward.layout import Part, TextLayout, extended
from vr_pipeline.rewards.videoreward.settings import (
    ARTIFACT_FILE,
    HEAD_FILE,
    MODEL_FOLDER,
    Calibration,
    NetworkSettings,
    VideoRewardArtifact,
    check_parts,
    read_artifact,
)
from vr_pipeline.storage.atomic import write_checksums
from vr_pipeline.storage.models import check_model_files, reason_in_short
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import Family, PreparedClip
from vr_pipeline.vlm.loading import family_name, load_family
from vr_pipeline.vlm.packing import Segment, pack, segment_mask
from vr_pipeline.vlm.prefix import decode, prefix_positions, segment_positions
from vr_pipeline.vlm.states import new_cache

if TYPE_CHECKING:
    import torch


class VideoRewardNetwork:
    """Computes one raw score per dimension for clips with prompts.

    Attributes:
        family: the vision-language model.
        settings: dimensions, texts, head and pooling.
        token_rows: embeddings of the special tokens, float32 [dimensions or 0, hidden].
        head: linear map without bias, float32, from hidden states to 1 output or one per dimension.
    """

    def __init__(self, family: Family, settings: NetworkSettings, token_rows: torch.Tensor, head: torch.Tensor) -> None:
        """Combine the parts; ``token_rows`` is [dimensions or 0, hidden], ``head`` [1 or dimensions, hidden]."""
        import torch

        self.family, self.settings = family, settings
        self.layout = TextLayout(family, settings)
        self.token_rows = torch.nn.Parameter(token_rows.detach().float().to(family.device))
        self.head = torch.nn.Linear(head.shape[1], head.shape[0], bias=False, device=family.device)
        self._head_weight = torch.nn.Parameter(head.detach().float().to(family.device))
        self.head.weight = self._head_weight

    @property
    def own_weights(self) -> dict[str, torch.nn.Parameter]:
        """The weights besides the vision-language model, by name."""
        weights = {"head.weight": self._head_weight}
        if self.settings.pooling == "special":
            weights["token_rows"] = self.token_rows
        return weights

    def scores(self, clips: Sequence[PreparedClip], prompts: Sequence[str], *, one_pass: bool = False) -> torch.Tensor:
        """Return raw scores, float32 [clips, dimensions], differentiable.

        Args:
            clips: prepared by the family, of any lengths and sizes.
            prompts: the text of each.
            one_pass: read clip and texts in one pass, for training: dimensions that do not see the prompt are then
                equal for all prompts within rounding, else exactly (for the same batch of clips). Always the case with
                pooling other than 'special' and with gradient checkpointing, which has no cache.

        Raises:
            InputError: a prompt cannot be tokenised.
        """
        if len(clips) != len(prompts):
            raise ValueError(f"{len(clips)} clips, {len(prompts)} prompts")
        if one_pass or not self._has_two_passes:
            return self._in_one_pass(clips, prompts)
        return self.scores_of_prompts(clips, [[prompt] for prompt in prompts])

    def scores_of_prompts(self, clips: Sequence[PreparedClip], prompts: Sequence[Sequence[str]]) -> torch.Tensor:
        """Return raw scores of clips with several prompts each, float32 [prompts of all clips, dimensions].

        Each clip is read once. Rows are ordered by clip, then prompt.
        """
        import torch

        repeated = [clip for clip, of_clip in zip(clips, prompts, strict=True) for _ in of_clip]
        every = [prompt for of_clip in prompts for prompt in of_clip]
        if not self._has_two_passes:
            return self._in_one_pass(repeated, every)
        layout, early = self.layout, self.layout.early
        read = [extended(clip, early) for clip in clips]
        embeddings, lengths = self.family.embed_prefixes(read)
        width = embeddings.shape[1]
        starts = [len(clip.token_ids) for clip in clips]
        embeddings = self._with_rows(embeddings, [(row, start, early) for row, start in enumerate(starts)])
        # What a recurrent layer keeps is behind the padding of shorter clips: there clips are read again.
        keeps = bool(layout.late_dimensions) and not self.family.recurrent
        cache = new_cache(self.family) if keeps else None
        hidden = decode(self.family, embeddings, prefix_positions(read, width), None, cache)
        counts = torch.tensor([len(of_clip) for of_clip in prompts], device=hidden.device)
        places = [(row, start + place) for row, start in enumerate(starts) for place in early.places]
        seen = _states(hidden, [row for row, _ in places], [column for _, column in places])
        seen = seen.view(len(clips), len(early.places), hidden.shape[-1]).repeat_interleave(counts, dim=0)
        if cache is not None:
            seen = torch.cat([seen, self._behind(cache, read, lengths, width, prompts)], dim=1)
        elif layout.late_dimensions:
            whole = self._in_special_places(repeated, every)
            seen = torch.cat([seen, whole[:, len(early.places) :]], dim=1)
        return self._scored(seen, (*early.dimensions, *layout.late_dimensions))

    @property
    def _has_two_passes(self) -> bool:
        model = self.family.model
        checkpointing = model.training and getattr(model, "is_gradient_checkpointing", False)
        return self.settings.pooling == "special" and not checkpointing

    def _behind(
        self, cache: Any, read: Sequence[PreparedClip], lengths: Any, width: int, prompts: Sequence[Sequence[str]]
    ) -> torch.Tensor:
        """Return hidden states at the tokens after the prompts, [prompts, dimensions after them, hidden]."""
        rows, segments = [], []
        for row, of_clip in enumerate(prompts):
            start, of_row = 0, []
            for part in map(self.layout.late, of_clip):
                of_row.append(Segment(part.token_ids, part.places))
                rows.append((row, start, part))
                start += len(part.token_ids)
            segments.append(of_row)
        packed = pack(segments)
        embeddings = self._with_rows(self.family.embed_tokens(packed.token_ids), rows)
        mask = segment_mask(lengths, width, packed.segments)
        hidden = decode(self.family, embeddings, segment_positions(read, packed), mask, cache)
        states = _states(hidden, packed.read_rows.tolist(), packed.read_columns.tolist())
        return states.view(len(rows), len(self.layout.late_dimensions), -1)

    def _in_one_pass(self, clips: Sequence[PreparedClip], prompts: Sequence[str]) -> torch.Tensor:
        """Return raw scores from one pass over the clip and all texts."""
        import torch

        pooling = self.settings.pooling
        if pooling == "special":
            order = (*self.layout.early.dimensions, *self.layout.late_dimensions)
            return self._scored(self._in_special_places(clips, prompts), order)
        hidden, lengths, _ = self._read_whole(clips, prompts)
        if pooling == "last":
            seen = _states(hidden, list(range(len(clips))), (lengths - 1).tolist())
        else:
            inside = torch.from_numpy(np.arange(hidden.shape[1])[None, :] < lengths[:, None]).to(hidden.device)
            count = torch.from_numpy(lengths).to(hidden.device)
            seen = hidden.float().masked_fill(~inside[..., None], 0.0).sum(dim=1) / count[:, None]
        dimensions = tuple(range(len(self.settings.dimensions)))
        return self._scored(seen[:, None].expand(-1, len(dimensions), -1), dimensions)

    def _in_special_places(self, clips: Sequence[PreparedClip], prompts: Sequence[str]) -> torch.Tensor:
        """Return hidden states at the special tokens, of those before the prompt first, [clips, places, hidden]."""
        hidden, _, rows = self._read_whole(clips, prompts)
        at = [(row, start + place) for row, start, part in rows for place in part.places]
        seen = _states(hidden, [row for row, _ in at], [column for _, column in at])
        return seen.view(len(clips), -1, hidden.shape[-1])

    def _read_whole(
        self, clips: Sequence[PreparedClip], prompts: Sequence[str]
    ) -> tuple[torch.Tensor, NDArray[np.int64], list[tuple[int, int, Part]]]:
        """Return hidden states of clips with all texts behind them, their lengths, and where the texts start."""
        layout = self.layout
        parts = [layout.early + layout.late(prompt) for prompt in prompts]
        read = [extended(clip, part) for clip, part in zip(clips, parts, strict=True)]
        embeddings, lengths = self.family.embed_prefixes(read)
        starts = [len(clip.token_ids) for clip in clips]
        rows = [(row, start, part) for row, (start, part) in enumerate(zip(starts, parts, strict=True))]
        embeddings = self._with_rows(embeddings, rows)
        return decode(self.family, embeddings, prefix_positions(read, embeddings.shape[1]), None), lengths, rows

    def _with_rows(self, embeddings: torch.Tensor, parts: Sequence[tuple[int, int, Part]]) -> torch.Tensor:
        """Insert the embeddings of special tokens of parts: (row of the batch, start of the part, part)."""
        import torch

        at = [
            (row, start + place, dimension)
            for row, start, part in parts
            for place, dimension in zip(part.places, part.dimensions, strict=True)
        ]
        if not at:
            return embeddings
        rows, columns, dimensions = torch.tensor(at, device=embeddings.device).unbind(dim=1)
        special = self.token_rows[dimensions].to(embeddings.dtype)
        # Some families' rows are wider: zeros stand for what only visual tokens have.
        special = torch.nn.functional.pad(special, (0, embeddings.shape[-1] - special.shape[-1]))
        return embeddings.index_put((rows, columns), special)

    def _scored(self, states: torch.Tensor, dimensions: Sequence[int]) -> torch.Tensor:
        """Apply the head to states [clips, dimensions, hidden], and order the dimensions as in the settings."""
        import torch

        with torch.autocast(states.device.type, enabled=False):
            if self.settings.head == "shared":
                found = self.head(states.float())[..., 0]
            else:
                found = (states.float() * self.head.weight[list(dimensions)]).sum(dim=-1)
        ordered: torch.Tensor = found[:, np.argsort(dimensions, kind="stable")]
        return ordered

    def save(
        self,
        folder: Path,
        calibration: Calibration | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the model's folder: reward.json, model/, head.safetensors and their checksums.

        Args:
            folder: an existing folder.
            calibration: from held-out clips.
            provenance: its origin, JSON values.
        """
        from safetensors.torch import save_file

        artifact = VideoRewardArtifact(
            family=family_name(self.family),
            network=self.settings,
            calibration=calibration,
            provenance=dict(provenance or {}),
        )
        place = folder / MODEL_FOLDER
        place.mkdir(exist_ok=True)
        self.family.save(place)
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in self.own_weights.items()}
        save_file(tensors, folder / HEAD_FILE)
        artifact.write(folder)
        write_checksums(folder)


def _states(hidden: torch.Tensor, rows: Sequence[int], columns: Sequence[int]) -> torch.Tensor:
    """Return hidden states at positions, [positions, hidden]."""
    import torch

    at = torch.tensor([rows, columns], dtype=torch.long, device=hidden.device)
    return hidden[at[0], at[1]]


def new_network(family: Family, settings: NetworkSettings, seed: int) -> VideoRewardNetwork:
    """Return an untrained network, with a small random head and special tokens near the vocabulary's mean."""
    import torch

    random = torch.Generator().manual_seed(seed)
    vocabulary = family.model.get_input_embeddings().weight.detach().float()
    hidden = vocabulary.shape[1]
    mean, deviation = vocabulary.mean(dim=0).cpu(), vocabulary.std(dim=0).cpu()
    rows = len(settings.dimensions) if settings.pooling == "special" else 0
    token_rows = mean + 0.1 * deviation * torch.randn((rows, hidden), generator=random)
    head = 0.02 * torch.randn((head_rows(settings), hidden), generator=random)
    return VideoRewardNetwork(family, settings, token_rows, head)


def head_rows(settings: NetworkSettings) -> int:
    """Return the number of the head's outputs."""
    return 1 if settings.head == "shared" else len(settings.dimensions)


def load_network(folder: Path, artifact: VideoRewardArtifact | None = None, **options: Any) -> VideoRewardNetwork:
    """Load a network from its folder for inference.

    Args:
        folder: written by :meth:`VideoRewardNetwork.save`.
        artifact: its reward.json, if already read.
        options: fields of :class:`~vr_pipeline.vlm.config.JudgeParameters`: device, dtype, threads, num_frames,
            frames_per_second, min_pixels, max_pixels.

    Raises:
        InputError: a file or weight is missing, unknown, damaged, has another shape, or is not finite.
    """
    import torch

    artifact = artifact or read_artifact(folder)
    check_parts(folder)
    check_model_files(folder, field="path")
    tensors = _read_head(folder / HEAD_FILE, artifact.network)
    place = folder / MODEL_FOLDER
    try:
        family = load_family(JudgeParameters(family=artifact.family, path=str(place), **options))
    except InputError as error:
        field = (error.field or "").replace("judge.", "model.")
        raise error.at(file=error.file or place, field=field) from error
    hidden = int(family.model.get_input_embeddings().weight.shape[1])
    for name, tensor in tensors.items():
        if tensor.shape[1] != hidden:
            problem = f"it has {tensor.shape[1]} columns, but the model's hidden size is {hidden}"
            raise _damaged(folder / HEAD_FILE, name, problem)
    for name, weight in family.model.state_dict().items():
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise _damaged(place, name, "it has values that are not finite numbers")
    rows = tensors.get("token_rows", torch.zeros((0, hidden)))
    network = VideoRewardNetwork(family, artifact.network, rows, tensors["head.weight"])
    for weight in network.own_weights.values():
        weight.requires_grad_(False)
    return network


def _read_head(path: Path, settings: NetworkSettings) -> dict[str, torch.Tensor]:
    """Read head and special tokens. Raises :class:`InputError` if they do not match the settings exactly."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, None, f"it cannot be read ({reason_in_short(error)})") from error
    rows = {"head.weight": head_rows(settings)}
    if settings.pooling == "special":
        rows["token_rows"] = len(settings.dimensions)
    for name in sorted(rows.keys() ^ tensors.keys()):
        raise _damaged(path, name, "it is missing" if name in rows else "the network has no such weight")
    for name, count in rows.items():
        tensor = tensors[name]
        if tensor.ndim != 2 or tensor.shape[0] != count:
            raise _damaged(path, name, f"it has shape {list(tensor.shape)}, but {ARTIFACT_FILE} needs {count} rows")
        if not bool(torch.isfinite(tensor).all()):
            raise _damaged(path, name, "it has values that are not finite numbers")
    return tensors


def _damaged(path: Path, name: str | None, problem: str) -> InputError:
    return InputError(problem, remedy="Train or download the model's folder again", file=path, field=name)
