"""How the watcher is doing, for people and programs outside: status, health, metrics, hooks, the page beside it."""
