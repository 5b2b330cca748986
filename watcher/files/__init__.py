"""Files and folders: what lies there, whether it is whole, and moves that a kill cannot tear."""
