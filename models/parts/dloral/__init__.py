"""Parts of DLoRAL: motion between frames, and what a frame takes over from the one before."""
