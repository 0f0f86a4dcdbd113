"""The judge answers every question of the checklist about every clip."""
