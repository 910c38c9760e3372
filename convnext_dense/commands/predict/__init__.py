"""Predict images and videos with a trained detector or segmentor.

inputs      what the user names -> files
decoding    a file -> an image, frames
predictor   images -> predictions, by model and test pipeline
results     predictions -> pictures, json, label maps
prediction  all of it, for many files
"""
