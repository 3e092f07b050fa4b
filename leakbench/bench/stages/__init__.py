"""The stages of every run, one file each: what trains, deploys, measures and attacks a network."""
