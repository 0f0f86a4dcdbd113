"""One prefix of a clip, read once, with all questions behind it: in one pass, or chunk by chunk behind a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vr_pipeline.vlm.families.base import Family, PreparedClip
from vr_pipeline.vlm.media import text_positions
from vr_pipeline.vlm.packing import PackedSegments, Segment, pack, packed_mask, prefix_mask, seeing_all, segment_mask
from vr_pipeline.vlm.states import State, cache_from, new_cache, state_of_row

if TYPE_CHECKING:
    import torch

Made = TypeVar("Made")


@dataclass(frozen=True)
class Lead:
    """Text with which the prefixes of several clips begin, read once for all of them.

    Attributes:
        tokens: how many tokens it has.
        state: what the decoder keeps of them.
    """

    tokens: int
    state: State


def read_lead(family: Family, token_ids: Sequence[int]) -> Lead:
    """Read the text with which clips begin, one token or more."""
    count = len(token_ids)
    cache = new_cache(family)
    embeddings = family.embed_tokens(np.array([token_ids], np.int64))
    decode(family, embeddings, text_positions(0, count, family.position_axes)[:, None], None, cache)
    return Lead(count, state_of_row(cache, 0, count))


def packed_logits(
    family: Family, clips: Sequence[PreparedClip], segments: Sequence[Sequence[Segment]], lead: Lead | None = None
) -> torch.Tensor:
    """Return next-token logits of every place that is read, in one pass over prefixes and segments; differentiable.

    A recurrent family reads each segment behind a prefix of its own, so that the clip's tokens are read as often; the
    vision tower reads the clip once.

    Args:
        family: the model.
        clips: with their prefixes.
        segments: of each clip.
        lead: what all prefixes begin with, if it was read already; a recurrent family reads it again.

    Returns:
        float32 [reads, vocabulary], reads in the order clip, segment, ``read_at``.
    """
    import torch

    if family.recurrent:
        return _logits_apart(family, clips, segments)
    layout = pack(segments)
    prefix, lengths = family.embed_prefixes(clips)
    start, cache = _from(lead, len(clips))
    width = prefix.shape[1]
    embeddings = torch.cat([prefix[:, start:], family.embed_tokens(layout.token_ids).to(prefix.dtype)], dim=1)
    positions = np.concatenate([prefix_positions(clips, width)[..., start:], segment_positions(clips, layout)], axis=2)
    mask = seeing_all(packed_mask(lengths - start, width - start, layout.segments), start)
    hidden = decode(family, embeddings, positions, mask, cache)
    return _read(family, hidden, layout, width - start)


def _from(lead: Lead | None, rows: int) -> tuple[int, Any]:
    """Return how many tokens of prefixes were read already, and the cache that holds them."""
    return (0, None) if lead is None else (lead.tokens, cache_from(lead.state, rows))


def _logits_apart(family: Family, clips: Sequence[PreparedClip], segments: Sequence[Sequence[Segment]]) -> torch.Tensor:
    import torch

    prefix, lengths = family.embed_prefixes(clips)
    rows = [(at, segment) for at, of_clip in enumerate(segments) for segment in of_clip]
    layout = pack([[segment] for _, segment in rows])
    texts = family.embed_tokens(layout.token_ids).to(prefix.dtype)
    starts, counts = lengths[[at for at, _ in rows]], [len(segment.token_ids) for _, segment in rows]
    # Padding on the right is seen by nothing before it.
    parts = [
        torch.cat([prefix[at, :start], texts[row, :count]])
        for row, ((at, _), start, count) in enumerate(zip(rows, starts, counts, strict=True))
    ]
    embeddings = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
    behind = segment_positions([clips[at] for at, _ in rows], layout)
    positions = np.zeros((len(behind), *embeddings.shape[:2]), np.int64)
    for row, ((at, _), start, count) in enumerate(zip(rows, starts, counts, strict=True)):
        positions[:, row, :start] = clips[at].positions
        positions[:, row, start : start + count] = behind[:, row, :count]
    hidden = decode(family, embeddings, positions, None)
    return _read(family, hidden, layout, starts[layout.read_rows])


class StatesOfPrefixes:
    """Prefixes of clips, read one by one; segments are rows of a batch that each continue a copy of the state."""

    def __init__(self, family: Family, clips: Sequence[PreparedClip], lead: Lead | None = None) -> None:
        self.family, self.clips = family, clips
        prefix, self.lengths = family.embed_prefixes(clips)
        self.states = []
        for row, (clip, length) in enumerate(zip(clips, self.lengths.tolist(), strict=True)):
            start, cache = _from(lead, 1)
            cache = cache or new_cache(family)
            positions = clip.positions[:, None, start:]
            decode(family, prefix[row : row + 1, start:length], positions, None, cache, behind=start)
            self.states.append(state_of_row(cache, 0, length))

    def logits(self, segments: Sequence[Sequence[Segment]]) -> torch.Tensor:
        """As :func:`packed_logits`, behind the prefixes that were read already."""
        import torch

        found = []
        for clip, length, state, of_clip in zip(self.clips, self.lengths, self.states, segments, strict=True):
            layout = pack([[segment] for segment in of_clip])
            rows = len(of_clip)
            mask = segment_mask(np.full(rows, length), int(length), layout.segments)
            positions = segment_positions([clip] * rows, layout)
            embeddings = self.family.embed_tokens(layout.token_ids)
            hidden = decode(self.family, embeddings, positions, mask, cache_from(state, rows))
            found.append(_read(self.family, hidden, layout, 0))
        return torch.cat(found)


class CachedPrefix:
    """Prefixes of a batch of clips, read once; chunks of segments are then asked behind them."""

    def __init__(self, family: Family, clips: Sequence[PreparedClip], lead: Lead | None = None) -> None:
        self.family, self.clips = family, clips
        prefix, self.lengths = family.embed_prefixes(clips)
        self.width = prefix.shape[1]
        start, cache = _from(lead, len(clips))
        self.cache = cache or new_cache(family)
        mask = seeing_all(prefix_mask(self.lengths - start, self.width - start), start)
        decode(family, prefix[:, start:], prefix_positions(clips, self.width)[..., start:], mask, self.cache)

    def logits(self, segments: Sequence[Sequence[Segment]]) -> torch.Tensor:
        """As :func:`packed_logits`, behind the prefixes that were read already."""
        layout = pack(segments)
        embeddings = self.family.embed_tokens(layout.token_ids)
        mask = segment_mask(self.lengths, self.width, layout.segments)
        hidden = decode(self.family, embeddings, segment_positions(self.clips, layout), mask, self.cache)
        self.cache.crop(-layout.token_ids.shape[1])
        return _read(self.family, hidden, layout, 0)


def prefix_positions(clips: Sequence[PreparedClip], width: int) -> Any:
    """Return positions of prefixes that are padded to a width, [axes, batch, width]."""
    positions = np.zeros((clips[0].positions.shape[0], len(clips), width), np.int64)
    for row, clip in enumerate(clips):
        positions[:, row, : clip.positions.shape[1]] = clip.positions
    return positions


def segment_positions(clips: Sequence[PreparedClip], layout: PackedSegments) -> Any:
    """Return positions of segments behind their prefixes, [axes, batch, length]."""
    starts = np.array([clip.next_position for clip in clips])
    return np.broadcast_to(layout.offsets + starts[:, None], (clips[0].positions.shape[0], *layout.offsets.shape))


def decode(
    family: Family, embeddings: torch.Tensor, positions: Any, mask: Any, cache: Any = None, *, behind: int = 0
) -> torch.Tensor:
    """Return the decoder's last hidden states, [batch, tokens, hidden].

    Args:
        family: the model.
        embeddings: [batch, tokens, hidden].
        positions: [axes, batch, tokens].
        mask: [batch, 1, tokens, tokens before and these], true where seen; None where each token sees all before it,
            which is computed faster. Padding on the right then needs no mask: nothing before it sees it.
        cache: keys and values of what was read before; these tokens are added.
        behind: number of tokens that were read before, if there is no mask.
    """
    import torch

    device = embeddings.device
    # Ones, and not nothing: without a mask the library looks for packed texts in the positions.
    batch, count = embeddings.shape[:2]
    seen = np.ones((batch, behind + count), np.int64) if mask is None else np.ascontiguousarray(mask)
    output = family.language_model(
        inputs_embeds=embeddings,
        position_ids=family.position_ids(torch.from_numpy(np.array(positions)).to(device)),
        attention_mask=torch.from_numpy(seen).to(device),
        past_key_values=cache,
        use_cache=cache is not None,
    )
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


def _read(family: Family, hidden: torch.Tensor, layout: PackedSegments, shift: Any) -> torch.Tensor:
    import torch

    rows, columns = torch.from_numpy(layout.read_rows), torch.from_numpy(layout.read_columns + shift)
    return family.logits(hidden[rows.to(hidden.device), columns.to(hidden.device)])


class PrefixOutOfMemory(RuntimeError):
    """Memory ran out before a question was asked: fewer questions at a time would not help."""


def unless_out_of_memory(make: Callable[[], Made]) -> Made | None:
    """Return what a function makes; None where memory runs out, free again of what the error's frames held."""
    try:
        return make()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return None


def is_out_of_memory(error: Exception) -> bool:
    import torch

    # On CPUs the allocator raises a plain RuntimeError.
    known = isinstance(error, (torch.OutOfMemoryError, PrefixOutOfMemory))
    return known or "DefaultCPUAllocator" in str(error)
