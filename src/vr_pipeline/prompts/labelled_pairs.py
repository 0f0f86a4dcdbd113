"""Pairs of prompts, labelled by hand, on which embedders and thresholds are judged.

Paraphrases describe one scene in other words. Hard negatives share most of their words but show another scene: another
actor, object, number, colour, action, direction or role. Unrelated pairs share neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from vr_pipeline.prompts.embedders import Embedder

PARAPHRASES: Final[tuple[tuple[str, str], ...]] = (
    ("a cat sleeping on a windowsill in the sun", "a sleeping cat lying on a sunny windowsill"),
    ("an old man walks along the beach at sunset", "an elderly man is walking on the beach at sundown"),
    ("a red sports car speeds down a mountain road", "a fast red sports car driving on a winding mountain road"),
    ("snow falls gently on a quiet village at night", "a silent village at night with snow falling softly"),
    ("a little girl blows soap bubbles in the park", "a small girl is blowing soap bubbles in a park"),
    ("two dogs chase each other across a field", "a pair of dogs running after each other in a field"),
    ("a chef slices vegetables in a busy kitchen", "a cook cutting vegetables in a crowded kitchen"),
    ("a rocket lifts off from the launch pad", "a rocket taking off from its launch pad"),
    ("waves crash against the rocks below a lighthouse", "a lighthouse above rocks with waves crashing on them"),
    ("a woman in a blue dress dances in the rain", "a woman dancing in the rain, wearing a blue dress"),
    ("a hot air balloon drifts over green hills", "a hot air balloon floating above green hills"),
    ("children build a sandcastle by the sea", "kids building a sand castle at the seaside"),
    ("a robot waters flowers in a garden", "a robot is watering the flowers in the garden"),
    ("a wolf howls at the full moon", "a howling wolf under a full moon"),
    ("a steaming cup of coffee on a wooden table", "a hot coffee cup with steam standing on a table of wood"),
    ("an astronaut floats above the earth", "an astronaut floating in space over the earth"),
    ("a crowded market street in Morocco", "a busy street market in Morocco"),
    ("a horse gallops through shallow water", "a galloping horse in shallow water"),
    ("a city skyline at night with neon lights", "the skyline of a city by night, lit by neon"),
    ("a butterfly lands on a purple flower", "a butterfly landing on a violet blossom"),
    ("a knight in armour rides a white horse", "a knight wearing armor riding on a white horse"),
    ("a pianist plays on an empty stage", "someone playing the piano on an empty stage"),
    ("a fisherman casts his net at dawn", "at dawn a fisherman is throwing his net"),
    ("a dragon breathes fire over a castle", "a fire-breathing dragon flying above a castle"),
    ("the camera flies through a dense jungle", "flying through a thick jungle, camera moving forward"),
    ("a boy plays football in the street", "a boy playing soccer on the street"),
    ("a train crosses a stone bridge in the mountains", "a stone bridge in the mountains with a train crossing it"),
    ("a baby laughs while playing with a puppy", "a laughing baby playing with a little dog"),
    ("a surfer rides a huge wave", "a surfer riding a giant wave"),
    ("autumn leaves fall in a forest", "falling leaves in an autumn forest"),
    ("a scientist looks through a microscope in a laboratory", "a scientist in a lab looking into a microscope"),
    ("a campfire burns beneath the stars", "a burning campfire under a starry sky"),
    ("an owl flies silently through a dark forest", "a silent owl flying in the dark woods"),
    ("a ballerina spins on a stage under a spotlight", "a ballet dancer turning on stage in a spotlight"),
    ("a drone shot of a waterfall in Iceland", "aerial view of an Icelandic waterfall"),
    ("a spaceship lands on a desert planet", "a space ship landing on a planet covered by desert"),
    ("a monk meditates in a temple", "a meditating monk inside a temple"),
    ("a squirrel eats a nut on a branch", "a squirrel sitting on a branch and eating a nut"),
    ("lightning strikes over a dark ocean", "a dark sea with lightning striking"),
    ("a street musician plays the violin for passers-by", "a violinist playing in the street as people walk by"),
)
HARD_NEGATIVES: Final[tuple[tuple[str, str], ...]] = (
    ("a dog chases a cat through the garden", "a cat chases a dog through the garden"),
    ("a red car parked in front of a blue house", "a blue car parked in front of a red house"),
    ("a man walks into a bar and orders a beer", "a man walks out of a bar and orders a taxi"),
    ("a woman opens the door of an old house", "a woman closes the door of an old house"),
    ("three birds sit on a wire in the rain", "one bird sits on a wire in the sun"),
    ("a boy throws a ball to his father", "a father throws a stone at his boy"),
    ("a train arrives at an empty station at night", "a train leaves a crowded station at noon"),
    ("a candle burns on a table in a dark room", "a lamp burns down in a bright room"),
    ("the sun rises over the mountains", "the moon rises over the sea"),
    ("a horse jumps over a fence", "a sheep sleeps under a fence"),
    ("a glass of water on a wooden table", "a glass table in the water"),
    ("an astronaut rides a horse on the moon", "a horse rides an astronaut on the moon"),
    ("a city street in summer with people", "an empty city street in winter"),
    ("a white cat with black eyes", "a black cat with white paws"),
    ("a chef cooks pasta in a kitchen", "a chef throws a pan in a kitchen"),
    ("a small boat sails on a calm lake", "a big ship sinks in a stormy lake"),
    ("a girl eats an apple under a tree", "a girl plants an apple tree"),
    ("a young man with long hair plays guitar", "a young man with long hair cuts wood"),
    ("a plane flies over a green forest", "a fire burns down a green forest"),
    ("a robot walks through a ruined city", "a robot builds a city on a hill"),
    ("camera zooms in on a woman's face", "camera zooms out from a man's hand"),
    ("a dragon sleeps on a heap of gold", "a dragon melts a heap of snow"),
    ("a soldier runs towards the burning house", "a fireman runs out of the burning forest"),
    ("two kids play chess in the park", "two kids fight in the park"),
    ("a blue butterfly on a yellow flower", "a yellow butterfly on a blue glove"),
    ("an old woman reads a letter by the window", "an old woman burns a letter by the river"),
    ("a car drives left along the coast", "a truck falls off the coast road"),
    ("snow melts on the roof of a cabin", "rain falls on the roof of a bus"),
    ("a king sits on a golden throne", "a queen breaks a golden crown"),
    ("a bear catches a salmon in the river", "a salmon jumps over a bear trap"),
    ("a dancer in a red dress on a white stage", "a singer in a white dress on a red carpet"),
    ("a clock on the wall shows midnight", "a picture on the wall shows a clock tower"),
    ("a child feeds ducks at the pond", "ducks swim away from a child at the pond"),
    ("a dog wearing sunglasses on the beach", "a man with a dog selling sunglasses on the beach"),
    ("time-lapse of a flower opening", "time-lapse of a building being torn down"),
    ("a bird's eye view of a small island", "a bird with a small eye on an island"),
    ("a ghost stands at the end of a long corridor", "a nurse runs to the end of a long corridor"),
    ("a bottle of wine falls from a table", "a bottle of wine is poured at a table"),
    ("a tiger walks through tall grass", "a lawn mower drives through tall grass"),
    ("a wooden bridge over a river in autumn", "a wooden boat under a bridge in spring"),
)
UNRELATED: Final[tuple[tuple[str, str], ...]] = (
    ("a cat sleeping on a windowsill in the sun", "a rocket lifts off from the launch pad"),
    ("an old man walks along the beach at sunset", "close-up of an ant carrying a leaf"),
    ("a red sports car speeds down a mountain road", "a monk meditates in a temple"),
    ("snow falls gently on a quiet village", "a chef slices vegetables in a busy kitchen"),
    ("a little girl blows soap bubbles", "molten steel pours from a furnace"),
    ("two dogs chase each other across a field", "a skyscraper under construction, time-lapse"),
    ("waves crash against the rocks below a lighthouse", "a tailor sews a silk jacket"),
    ("a woman in a blue dress dances in the rain", "a tractor ploughs a dry field"),
    ("a hot air balloon drifts over green hills", "a dentist examines a patient"),
    ("a robot waters flowers in a garden", "a boxing match in a smoky hall"),
    ("a wolf howls at the full moon", "a student types on a laptop in a library"),
    ("an astronaut floats above the earth", "pancakes with syrup on a plate"),
    ("a crowded market street in Morocco", "a submarine dives under the ice"),
    ("a horse gallops through shallow water", "an abstract pattern of glowing lines"),
    ("a butterfly lands on a purple flower", "a judge strikes the gavel in court"),
    ("a pianist plays on an empty stage", "lava flows down a volcano"),
    ("a fisherman casts his net at dawn", "teenagers skate in an empty swimming pool"),
    ("a dragon breathes fire over a castle", "a barista pours milk into a cup"),
    ("a boy plays football in the street", "a jellyfish drifts in the deep sea"),
    ("a baby laughs while playing with a puppy", "a wind farm on the plain at noon"),
    ("a surfer rides a huge wave", "an accountant counts coins at night"),
    ("autumn leaves fall in a forest", "a race of vintage motorcycles"),
    ("a scientist looks through a microscope", "a parade of elephants in India"),
    ("an owl flies silently through a dark forest", "a family eats pizza in front of the television"),
    ("a ballerina spins on a stage", "an excavator digs a trench"),
    ("a spaceship lands on a desert planet", "a grandmother knits a scarf by the fire"),
    ("a squirrel eats a nut on a branch", "traffic on a motorway in heavy fog"),
    ("a street musician plays the violin", "penguins slide down an icy slope"),
    ("lightning strikes over a dark ocean", "a boy solves a Rubik's cube"),
    ("a knight in armour rides a white horse", "a conveyor belt with plastic bottles"),
)


def evaluate_embedder(embedder: Embedder, threshold: float) -> dict[str, Any]:
    """How well cosine above a threshold tells paraphrases from the rest.

    Returns:
        precision and recall at the threshold (a paraphrase is a positive), the share of hard negatives and of
        unrelated pairs that pass it, and the area under the ROC curve against each kind of negative.
    """
    positive, hard, unrelated = (_cosines(embedder, pairs) for pairs in (PARAPHRASES, HARD_NEGATIVES, UNRELATED))
    found = int((positive > threshold).sum())
    wrong = int((hard > threshold).sum() + (unrelated > threshold).sum())
    return {
        "threshold": threshold,
        "precision": round(found / (found + wrong), 4) if found + wrong else None,
        "recall": round(found / len(positive), 4),
        "hard_negatives_above": round(float((hard > threshold).mean()), 4),
        "unrelated_above": round(float((unrelated > threshold).mean()), 4),
        "auc_hard": round(area_under_curve(positive, hard), 4),
        "auc_unrelated": round(area_under_curve(positive, unrelated), 4),
    }


def area_under_curve(positive: npt.NDArray[np.floating[Any]], negative: npt.NDArray[np.floating[Any]]) -> float:
    """Probability that a random positive scores above a random negative, ties half."""
    above = (positive[:, None] > negative[None, :]).mean()
    return float(above + (positive[:, None] == negative[None, :]).mean() / 2)


def _cosines(embedder: Embedder, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
    first = embedder.embed([a for a, _ in pairs]).astype(np.float64)
    second = embedder.embed([b for _, b in pairs]).astype(np.float64)
    return np.einsum("ij,ij->i", first, second)
