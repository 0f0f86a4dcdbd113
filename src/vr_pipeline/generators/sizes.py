"""Sizes of clips that a pipeline can make; some would quietly make clips of another size."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters


class CheckedSizes:
    """Checks of the configured size."""

    parameters: GeneratorParameters

    @property
    @abstractmethod
    def pixels_a_token(self) -> int:
        """Pixels a side of what the denoiser sees as one; heights and widths are multiples of it."""

    def check_size(self) -> None:
        """See that the model can make clips of the configured size.

        Raises:
            InputError: if it cannot.
        """
        for side in ("height", "width"):
            self.check_number(side, getattr(self.parameters, side), 0, self.pixels_a_token)

    def check_number(self, field: str, given: int, first: int, step: int) -> None:
        """Reject what is not ``first`` plus a multiple of ``step``."""
        if (given - first) % step:
            below = given - (given - first) % step
            near = [number for number in (below, below + step) if number > 0]
            raise InputError(
                f"this model makes clips whose {field} is {f'{first} + ' if first else ''}a multiple of {step}, but "
                f"{given} is configured",
                field=f"generator.{field}",
                remedy=f"choose {' or '.join(map(str, near))}",
            )

    def check_positions(self, longest: int, **further: int) -> None:
        """Reject sizes of more tokens a side than the denoiser has positions for; further sizes are in tokens."""
        tokens = {name: getattr(self.parameters, name) // self.pixels_a_token for name in ("height", "width")}
        for field, count in {**further, **tokens}.items():
            if count > longest:
                raise InputError(
                    f"this model has positions for {longest} tokens along each side of a clip, but for {field} "
                    f"{getattr(self.parameters, field)} is configured",
                    field=f"generator.{field}",
                    remedy=f"choose a smaller {field}",
                )

    def check_shape(self, shape: Sequence[int]) -> None:
        """Reject clips, [frames, height, width], that are not of the configured size."""
        wanted = {name: getattr(self.parameters, name) for name in ("num_frames", "height", "width")}
        for (field, asked), given in zip(wanted.items(), shape, strict=True):
            if asked != given:
                raise InputError(
                    f"the model makes clips whose {field} is {given}, but {asked} is configured",
                    remedy=f"set {field} to {given}, or choose another model",
                    field=f"generator.{field}",
                )
