"""The number of rounds of online training, which the graph of pipelines depends on.

Kedro makes the pipelines without a configuration; a session, or a command that reads an environment, sets the number
before it looks at them.
"""

from typing import Any

from kedro.config import AbstractConfigLoader

from vr_pipeline.project.configuration import section

DEFAULT_ROUNDS = 3
_state = {"rounds": DEFAULT_ROUNDS}


def rounds() -> int:
    """Return the number of rounds for which pipelines are made."""
    return _state["rounds"]


def use_rounds(loader: AbstractConfigLoader) -> None:
    """Take the number of rounds from ``online_mpo.rounds`` of an environment, and have the pipelines made again.

    A value that is no number of rounds is left to the validation of parameters.
    """
    block: Any = section(loader, "parameters").get("online_mpo")
    wanted = block.get("rounds", DEFAULT_ROUNDS) if isinstance(block, dict) else DEFAULT_ROUNDS
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= 99 or wanted == rounds():
        return
    from kedro.framework.project import pipelines

    _state["rounds"] = wanted
    pipelines.configure("vr_pipeline.pipeline_registry")
