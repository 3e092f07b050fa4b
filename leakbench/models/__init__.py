"""ANN architectures and their training, the judges, and networks to and from tensors."""
