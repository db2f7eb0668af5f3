"""Scores of labels against a truth: IoU, Dice, SEG and F1, frame by frame and pooled."""
