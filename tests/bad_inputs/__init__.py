"""What a user can give that is wrong, and what the tools say to it: one table.

``python -m tests.bad_inputs`` prints it as docs/errors.md.
"""

from . import (
    checkpoints,
    command_lines,
    configs,
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
    "Data: label maps": label_maps.CASES,
    "Images and videos": images.CASES,
    "Checkpoints": checkpoints.CASES,
    "Disk and machine": machine.CASES,
}

HEAD = """\
# What goes wrong, and what the tools say

Whatever is wrong with what they are given, the tools end with one message and an exit
code, change none of the files they were given, and leave nothing half-made. A test
makes each of these inputs and looks. `…` stands for names and numbers of the case.

Exit codes: 2 for a mistake, 1 for data with errors or files that could not be
predicted, 0 where it is told and the work goes on. Of runs that have begun: 3 for
numbers that are not finite time and again, 5 where another process has ended, 75 if
stopped by a signal and saved, 130 if interrupted before. `CONVNEXT_DENSE_DEBUG=1` shows
the Python stack.
"""


def markdown() -> str:
    """The table, for people."""
    lines = [HEAD]
    for area, cases in AREAS.items():
        lines += [f"## {area}\n", "| tool | given | code | says |", "|---|---|---|---|"]
        for case in cases:
            says = case.says.replace("...", "…").replace("|", "\\|")
            lines.append(f"| {case.tool} | {case.given} | {case.code} | `{says}` |")
        lines.append("")
    return "\n".join(lines)
