"""Pages and drawings that commands share."""
