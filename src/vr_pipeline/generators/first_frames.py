"""What image-to-video pipelines have in common: every clip starts from an image."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Frames, Images, Part
from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
from vr_pipeline.video.fit import cover

if TYPE_CHECKING:
    from PIL import Image


class FirstFrameGenerator(PipelineGenerator):
    """A pipeline whose clips start from an image, which is scaled and cut to their size, not stretched."""

    takes_image: ClassVar[bool] = True

    @classmethod
    def _load_pipeline(cls, parameters: GeneratorParameters, parts: Collection[Part], **components: Any) -> Any:
        # The condition of a clip holds latents of its first frame.
        parts = {*parts, "autoencoder"} if "text_encoder" in parts else parts
        return super()._load_pipeline(parameters, parts, **components)

    def fitted(self, images: Images) -> Frames:
        """Return images of the clips' size, uint8 [images, height, width, 3]."""
        return np.stack([cover(image, self.parameters.height, self.parameters.width) for image in images])

    def pictures(self, images: Images) -> list[Image.Image]:
        """Return images of the clips' size as the pipeline takes them."""
        from PIL import Image

        return [Image.fromarray(image) for image in self.fitted(images)]
