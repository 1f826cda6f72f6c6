"""Published weights: what there is, where it comes from, and where it lies on this machine."""
