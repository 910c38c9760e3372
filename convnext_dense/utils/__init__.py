"""Helpers that do not depend on models, data sets or runs.

files            opens regular files only; writes files that are complete or absent
partials         partial files, which get their names when they are complete
locks            locks that end with their process
outputs          decides whether a command may write its outputs
torch_files      a stream into which torch writes
json_files       reads JSON within bounds
yaml_files       reads YAML within bounds
xml_files        reads XML within bounds
coco_json        reads a COCO annotation file
annotation_formats  recognises annotations of other formats
annotation_tables   which formats these are
images           reads and writes image files
image_content    opens an image after checks of its size
image_structure  checks scans, chunks and tags of an image file
image_values     checks that OpenCV reads an image's values as they are
foreign_formats  names the format of a file that is not an image
masks            reads COCO's masks
memory           how much memory is free, and a limit on it
text             short texts for messages
distributed      what the processes of a run do together
"""
