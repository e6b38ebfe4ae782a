"""The layer in the programs that the GPU compiler makes; no GPU is needed."""
