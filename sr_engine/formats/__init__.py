"""Files' bytes to planes of samples and back: `decoding` and `encoding`, and what they stand on."""
