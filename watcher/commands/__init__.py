"""What `watcher.cli` offers: each module parses, calls what does the work, and prints."""
