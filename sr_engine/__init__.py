"""The GPU side of dropscale: one process that upscales a batch of pictures and exits."""
