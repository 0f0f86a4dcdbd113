"""Folders of many items (clips, answers, latents), made item by item and verified."""
