"""`k3s-daas status`: what the chain, the master and the cluster say, at a glance."""
