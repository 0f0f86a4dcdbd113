"""Vision-language models: families, frames, tiles, packing of questions, loading."""
