"""Accuracy of a trained model from its matched detections: mAP, its file, and its resamples of images."""
