"""The fake codec for all tests of this folder."""

from codec.fake_codec import fake, weights

__all__ = ["fake", "weights"]
