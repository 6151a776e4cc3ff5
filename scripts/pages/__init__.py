"""Pages of the documentation that are made from the code as the site is built."""
