"""What a training step does on a TPU pod, as the TPU compiler sees it; no TPU is needed."""
