"""Self-supervised methods, one file each, with the Lightning Module and backbones they share."""
