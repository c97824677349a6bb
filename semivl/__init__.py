"""semivl: from a bucket of images, few of them with masks, to a segmentation model promoted only when better."""

__version__ = "0.1.0"
