"""HTML pages and drawings that several commands use.

pages     writes HTML files
drawing   draws annotations and predictions into images
run       the page about a run
"""
