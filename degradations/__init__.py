"""Functions of (pictures, generator) that make good pictures bad; recipes are data."""
