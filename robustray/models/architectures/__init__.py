"""Networks as modules of torch: blocks, layers, and what is built of them."""
