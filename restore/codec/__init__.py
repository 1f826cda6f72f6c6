"""Pictures to few bytes and back: codecs on one container, which `restore.bitstream` writes."""
