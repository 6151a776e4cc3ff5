"""What an evaluation's pages show: what became of the images, examples, accuracy against eps."""
