"""One file per restoration method; what several share lives in `parts`."""
