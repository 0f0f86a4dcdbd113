"""Users' prompts, clips, preferences and checklists, checked together and made into an environment."""
