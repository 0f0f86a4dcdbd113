"""Reading and writing of clips: frames are uint8 arrays [frames, height, width, 3] in RGB."""
