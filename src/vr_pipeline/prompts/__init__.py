"""Prompts: reading, cleaning, near-duplicate removal by words and by meaning, choice and split.

Nothing here imports torch or knows of Kedro; :mod:`vr_pipeline.pipelines.prompt_filtering` joins the parts.
"""
