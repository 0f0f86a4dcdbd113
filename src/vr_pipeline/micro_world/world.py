"""Scenes of the micro-world: the content of clips, how it is drawn, and the true answers to the checklist.

A clip shows one shape of one colour that moves left or right over a plain background, with graded flaws. The prompt
names colour, shape, direction and background; speed and flaws are never named, so a generator trained on these clips
has to choose them itself, which is what preference optimisation then changes.
"""

import itertools
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vr_pipeline.micro_world.config import SceneParameters

NUM_FRAMES: Final = 8
SIZE: Final = 16
FRAMES_PER_SECOND: Final = 8.0
COLOURS: Final[dict[str, tuple[float, float, float]]] = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.15, 0.25, 0.95),
    "yellow": (0.95, 0.85, 0.05),
}
SHAPES: Final = ("ball", "ring", "cross")
DIRECTIONS: Final = ("left", "right")
BACKGROUNDS: Final[dict[str, float]] = {"black": 0.0, "white": 1.0}
ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "direction": DIRECTIONS,
    "background": tuple(BACKGROUNDS),
}
"""What a prompt names, in its order, and the values of each."""
_PROMPT: Final = re.compile("({}) ({}) moves ({}) on ({})".format(*map("|".join, ATTRIBUTES.values())))

RADIUS: Final = 4.0
SPEEDS: Final = (0.25, 0.65, 1.05)
"""Pixels per frame for slow, medium and fast."""
BLUR_SIGMAS: Final = (0.0, 1.0, 2.0)
CONTRASTS: Final = (1.0, 0.6, 0.35)
FLICKERS: Final = (0.0, 0.16, 0.38)
"""Amplitude of the alternating change of brightness."""
FINAL_SIZES: Final = (1.0, 0.72, 0.45)
"""Radius in the last frame as a share of the radius in the first."""
ZIGZAG: Final = 2.0
"""Height in pixels of the vertical movement of a clip whose path is not straight."""
_SUPERSAMPLING: Final = 4
SHIPPED_SCENES: Final = SceneParameters()
"""How the scenes were drawn from which the shipped models learned."""


@dataclass(frozen=True)
class Scene:
    """Everything that determines a clip. Grades of flaws count from 0 (none)."""

    colour: str
    shape: str
    direction: str
    background: str
    speed: int = 1
    blur: int = 0
    contrast: int = 0
    flicker: int = 0
    shrink: int = 0
    colour_drift: int = 0
    zigzag: int = 0
    start: float = 0.5
    """Start of the path in the free horizontal space, from 0 to 1."""
    height: float = 0.5
    """Height of the path in the free vertical space, from 0 to 1."""
    drift_colour: str = "blue"
    """The last colour of a drifting clip; ignored without drift."""

    @property
    def prompt(self) -> str:
        """The text that describes the scene."""
        return _prompt_of(self.colour, self.shape, self.direction, self.background)

    @property
    def caption(self) -> str:
        """What a viewer sees, in five words; an auxiliary target for training the judge.

        The last word is the last colour of a drifting clip, or 'constant'. Naming shape and colours teaches the judge
        to recognise them before it compares them with a question.
        """
        final = self.drift_colour if self.colour_drift else "constant"
        return f"{self.colour} {self.shape} {self.direction} {self.background} {final}"


def _prompt_of(colour: str, shape: str, direction: str, background: str) -> str:
    return f"{colour} {shape} moves {direction} on {background}"


def all_prompts() -> list[str]:
    """Return the 48 prompts of the world, in a fixed order."""
    return [_prompt_of(*values) for values in itertools.product(*ATTRIBUTES.values())]


UNTIDY_PROMPTS = (
    "red ball moves left on black",
    "Blue ring  moves right on white",
    "green cross moves left on white",
    "a red ball moves left on black",
    "yellow ring moves right on white slowly",
    "the blue ball moves left on white",
    "on black moves red ball left",
    "right on white moves green ring",
    "ball",
    "https://example.com/clip.mp4",
    "### !!! *** ??? /// &&&",
    "red red red red red red red",
)
"""Repetitions, near repetitions and junk, as in real lists of prompts, for the filter to reject."""


def parse_prompt(prompt: str) -> tuple[str, str, str, str]:
    """Return colour, shape, direction and background that a prompt names.

    Raises:
        ValueError: if the prompt is not one of this world's.
    """
    named = _PROMPT.fullmatch(" ".join(prompt.split()))
    if named is None:
        raise ValueError(f"not a prompt of the micro-world: {prompt!r}")
    colour, shape, direction, background = named.groups()
    return colour, shape, direction, background


def sample_scene(
    random: np.random.Generator, prompt: str, *, flaw_scale: float = 1.0, scenes: SceneParameters = SHIPPED_SCENES
) -> Scene:
    """Draw the parts of a scene that its prompt leaves open.

    Flaws are likelier in fast clips, so that total reward and dynamics pull against each other, as they do for real
    generators.

    Args:
        flaw_scale: multiplies the probability of every flaw; 0 gives perfect clips of random speed.
        scenes: share of fast clips, and how much likelier flaws are in them.
    """
    colour, shape, direction, background = parse_prompt(prompt)
    if scenes.fast_share is None:
        speed = int(random.integers(3))
    else:
        speed = 2 if random.random() < scenes.fast_share else int(random.integers(2))
    scale = flaw_scale * scenes.flaw_scale_by_speed[speed]

    def grade(probability_mild: float, probability_strong: float) -> int:
        draw = random.random()
        if draw < probability_strong * scale:
            return 2
        return 1 if draw < (probability_strong + probability_mild) * scale else 0

    return Scene(
        colour,
        shape,
        direction,
        background,
        speed=speed,
        blur=grade(0.18, 0.14),
        contrast=grade(0.18, 0.14),
        flicker=grade(0.18, 0.14),
        shrink=grade(0.18, 0.14),
        colour_drift=int(random.random() < 0.25 * scale),
        zigzag=int(random.random() < 0.25 * scale),
        # Nearly centred: what the tiny generator can learn in minutes are flaws, not places.
        start=float(random.uniform(0.42, 0.58)),
        drift_colour=str(random.choice([name for name in COLOURS if name != colour])),
    )


def _masks(
    shape: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], radius: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Coverage of each pixel by the shape, [frames, height, width] in 0 to 1, antialiased by supersampling.

    Args:
        x: horizontal position of the centre in each frame, in pixels, [frames].
        y: vertical position, [frames].
        radius: radius in each frame, in pixels, [frames].
    """
    steps = (np.arange(SIZE * _SUPERSAMPLING) + 0.5) / _SUPERSAMPLING
    dx, dy = steps - x[:, None], steps - y[:, None]
    radius = radius[:, None]
    if shape == "cross":
        arm_x, arm_y = np.abs(dx) <= 0.3 * radius, np.abs(dy) <= 0.3 * radius
        box_x, box_y = np.abs(dx) <= radius, np.abs(dy) <= radius
        inside = (arm_x[:, None, :] & box_y[:, :, None]) | (box_x[:, None, :] & arm_y[:, :, None])
    else:
        # Squares are compared: a root for each of the 16 samples of a pixel would take most of the time.
        squared = (dx**2)[:, None, :] + (dy**2)[:, :, None]
        inside = squared <= (radius**2)[..., None]
        if shape == "ring":
            inside &= squared >= ((0.55 * radius) ** 2)[..., None]
    # Rows of samples first, while they still are single bytes.
    by_row = inside.view(np.uint8).reshape(len(x), SIZE, _SUPERSAMPLING, SIZE * _SUPERSAMPLING)
    count = sum((by_row[:, :, offset] for offset in range(1, _SUPERSAMPLING)), by_row[:, :, 0])
    return count.reshape(len(x), SIZE, SIZE, _SUPERSAMPLING).sum(axis=-1) / _SUPERSAMPLING**2


def _blur_matrix(sigma: float) -> npt.NDArray[np.float64]:
    """Gaussian smoothing along one axis as a row-normalised matrix, [SIZE, SIZE]."""
    positions = np.arange(SIZE)
    kernel = np.exp(-((positions[:, None] - positions[None, :]) ** 2) / (2 * sigma**2))
    return kernel / kernel.sum(axis=1, keepdims=True)


def render(scene: Scene) -> npt.NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        uint8 array [NUM_FRAMES, SIZE, SIZE, 3].
    """
    travel = SPEEDS[scene.speed] * (NUM_FRAMES - 1)
    left = RADIUS + scene.start * (SIZE - 2 * RADIUS - travel)
    room = SIZE - 2 * RADIUS - (ZIGZAG if scene.zigzag else 0.0)
    top = RADIUS + scene.height * room
    colour = np.array(COLOURS[scene.colour])
    final_colour = np.array(COLOURS[scene.drift_colour]) if scene.colour_drift else colour
    background = BACKGROUNDS[scene.background]

    share = np.arange(NUM_FRAMES) / (NUM_FRAMES - 1)
    odd = np.arange(NUM_FRAMES) % 2 == 1
    moved = travel * (share if scene.direction == "right" else 1.0 - share)
    mask = _masks(
        scene.shape,
        left + moved,
        top + np.where(odd & bool(scene.zigzag), ZIGZAG, 0.0),
        RADIUS * (1.0 + (FINAL_SIZES[scene.shrink] - 1.0) * share),
    )
    shown = colour + (final_colour - colour) * share[:, None]
    frames = background + (shown - background)[:, None, None, :] * mask[..., None]
    # Black cannot get darker and white not brighter: flicker pulls towards grey on odd frames.
    frames[odd] += FLICKERS[scene.flicker] * (0.5 - frames[odd])
    frames = 0.5 + (frames - 0.5) * CONTRASTS[scene.contrast]
    if scene.blur:
        smooth = _blur_matrix(BLUR_SIGMAS[scene.blur])
        columns = smooth @ frames.reshape(NUM_FRAMES, SIZE, SIZE * 3)
        frames = smooth @ columns.reshape(NUM_FRAMES, SIZE, SIZE, 3)
    return np.round(np.clip(frames, 0.0, 1.0) * 255.0).astype(np.uint8)


def answers(scene: Scene, prompt: str | None = None) -> dict[str, bool]:
    """Return the true answer to every question of the micro-world's checklist, by question id.

    Args:
        prompt: the prompt the clip is judged against; the scene's own if not given.
    """
    wanted = zip(ATTRIBUTES, parse_prompt(scene.prompt if prompt is None else prompt), strict=True)
    return {
        **{f"{name}_matches": getattr(scene, name) == value for name, value in wanted},
        "sharp": scene.blur == 0,
        "not_very_blurred": scene.blur < 2,
        "strong_contrast": scene.contrast == 0,
        "not_very_faint": scene.contrast < 2,
        "moves_fast": scene.speed == 2,
        "moves_clearly": scene.speed >= 1,
        "size_kept": scene.shrink == 0,
        "size_mostly_kept": scene.shrink < 2,
        "colour_kept": scene.colour_drift == 0,
        "brightness_steady": scene.flicker == 0,
        "brightness_mostly_steady": scene.flicker < 2,
        "path_straight": scene.zigzag == 0,
    }


def perturbed_prompt(random: np.random.Generator, prompt: str, probability: float = 0.5) -> str:
    """Return a prompt in which each named attribute was replaced with another value with the given probability."""
    named = dict(zip(ATTRIBUTES, parse_prompt(prompt), strict=True))
    for name in ATTRIBUTES:
        if random.random() < probability:
            named[name] = _other_value(random, name, named[name])
    return _prompt_of(**named)


def neighbouring_prompt(random: np.random.Generator, prompt: str, changes: int) -> str:
    """Return a prompt that differs from the given one in ``changes`` attributes."""
    named = dict(zip(ATTRIBUTES, parse_prompt(prompt), strict=True))
    for name in random.permutation(list(ATTRIBUTES))[:changes]:
        named[name] = _other_value(random, name, named[name])
    return _prompt_of(**named)


def _other_value(random: np.random.Generator, attribute: str, value: str) -> str:
    return str(random.choice([choice for choice in ATTRIBUTES[attribute] if choice != value]))
