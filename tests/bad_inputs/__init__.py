"""The table of bad inputs: what a user can get wrong, and the tools' messages.

``python -m tests.bad_inputs`` prints it as docs/errors.md.
"""

from . import (
    checkpoints,
    command_lines,
    configs,
    formats,
    hub,
    images,
    label_maps,
    machine,
    objects,
    settings,
)

AREAS = {
    "Command lines": command_lines.CASES,
    "Settings": settings.CASES,
    "Configs": configs.CASES,
    "Data: objects in a COCO file": objects.CASES,
    "Data: objects in other formats": formats.CASES,
    "Data: label maps": label_maps.CASES,
    "Images and videos": images.CASES,
    "Checkpoints": checkpoints.CASES,
    "Hub": hub.CASES,
    "Disk and machine": machine.CASES,
}

HEAD = """\
# Mistakes and messages

If an input is wrong, a tool ends with one message and an exit code. It changes no input
file and leaves no incomplete file. A test runs each case in these tables. `…` stands
for names and numbers of the case.

| exit code | meaning |
|---|---|
| 0 | success, perhaps with warnings |
| 1 | the data has errors, some files could not be predicted, or a check failed |
| 2 | a mistake in the input: a config, a file, an argument |
| 3 | training stopped: losses or gradients were not finite several times |
| 5 | training stopped: another process of the run has ended |
| 75 | a signal stopped training, which saved a checkpoint; continue with `--resume` |
| 130, 143 | interrupted by Ctrl-C; training: by a second Ctrl-C or SIGTERM |

`CONVNEXT_DENSE_DEBUG=1` shows the Python stack of an error.
"""


def markdown() -> str:
    """docs/errors.md: the table in Markdown."""
    lines = [HEAD]
    for area, cases in AREAS.items():
        lines += [
            f"## {area}\n",
            "| tool | input | code | message |",
            "|---|---|---|---|",
        ]
        for case in cases:
            says = case.says.replace("...", "…").replace("|", "\\|")
            lines.append(f"| {case.tool} | {case.mistake} | {case.code} | `{says}` |")
        lines.append("")
    return "\n".join(lines)
