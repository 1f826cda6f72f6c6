"""The page in the browser: widgets around the engine, and what makes them safe on a network."""
