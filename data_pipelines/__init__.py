"""From raw footage and folders to what a trainer reads."""
