"""Programs around the engine: widgets and queues, no inference logic."""
