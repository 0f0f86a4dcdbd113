"""Vision-language models: families, frames, tiles, requests with several clips, likelihood of answers, loading."""
