"""Effect of guidance by a latent reward: clips of the same seeds by strength, their rewards and drift."""
