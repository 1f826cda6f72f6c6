"""The room of `restore degrade`: files in, degraded files and records of the draws out."""
