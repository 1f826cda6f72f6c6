"""What several methods share; nothing here knows a method."""
