"""Parts that several backbones share."""
