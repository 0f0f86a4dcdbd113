"""Own data: prompts, clips, preferences and a checklist, checked at once and made into an environment that runs."""
