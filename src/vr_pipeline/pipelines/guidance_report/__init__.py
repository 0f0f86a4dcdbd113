"""Clips from the same seeds at several strengths of guidance by a latent reward, with their rewards and drift."""
