"""The trainer: recipe in, weights that `restore image` loads out."""
