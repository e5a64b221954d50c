"""Workers as the actors of a Ray cluster."""
