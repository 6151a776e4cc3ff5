"""What the rehearsal of a cluster's bad days is made of."""
