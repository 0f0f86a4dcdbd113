"""Prompts: reading, cleaning, removal of near-duplicates by words and meaning, choice and split.

Nothing here imports torch or Kedro; :mod:`vr_pipeline.pipelines.prompt_filtering` combines the parts.
"""
