"""HTML pages and drawings that several commands use.

pages     writes HTML files
drawing   draws annotations and predictions into images
fonts     finds fonts that have the characters of names
run       the page about a run
"""
