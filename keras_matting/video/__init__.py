"""Video: clips to clips with an alpha channel, through PyAV (FFmpeg)."""
