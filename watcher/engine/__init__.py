"""The engine as the watcher sees it: one child process, when it may start, when it is kept, what it takes of a GPU."""
