"""Torch modules: the dense encoder of a vision-language model and the decoders that read it."""
