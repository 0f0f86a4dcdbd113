"""Folders of many items (clips, answers, latents), made piece by piece and verified."""
