"""Images: what there is, how it comes and how it goes. `images.Images` is the face of it."""

from knarr.engine.images.images import Image, Images

__all__ = ["Image", "Images"]
