"""A user's own models: got from the network or from disk, verified, kept in a folder."""
