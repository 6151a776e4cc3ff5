"""Formats of files that may say anything: arrays, pickles and images; what is known of them."""
