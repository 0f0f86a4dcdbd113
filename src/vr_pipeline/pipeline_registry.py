"""The project's pipelines by name."""

from kedro.pipeline import Pipeline

OTHERS = (
    *("micro_world", "micro_videoreward", "micro_unifiedreward"),
    *("judge_training", "preference_reward_training", "unified_reward_training"),
    *("latent_reward_training", "guidance_report", "vlm_dpo", "reward_benchmark", "preference_generation"),
)
"""Pipelines that are no stage of a system."""


def register_pipelines() -> dict[str, Pipeline]:
    """Make all pipelines; modules are imported here and not above, so that commands which run nothing start quickly."""
    from vr_pipeline.pipelines.latent_reward_training.pipeline import create_pipeline
    from vr_pipeline.pipelines.systems import MPO_DPO, SYSTEMS, online_mpo
    from vr_pipeline.project.rounds import rounds
    from vr_pipeline.viz.pipelines import PicturedPipeline

    pipelines = {name: MPO_DPO.stage(name) for name in OTHERS}
    of_people = "preference_latent_reward_training"
    pipelines[of_people] = Pipeline(
        create_pipeline(of_people=True),
        namespace=of_people,
        prefix_datasets_with_namespace=False,
    )
    for system in (*SYSTEMS, online_mpo(rounds())):
        stages = {system.registered(name): system.stage(name) for name in system.stages}
        pipelines |= {name: stage for name, stage in stages.items() if name not in pipelines}
        pipelines[system.name] = Pipeline([*stages.values()])
    pipelines["__default__"] = pipelines[MPO_DPO.name]
    return {name: PicturedPipeline(pipeline.nodes) for name, pipeline in pipelines.items()}
