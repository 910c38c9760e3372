"""Wrong inputs, and the message and exit code of the tools for each: one table.

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

A tool that gets a wrong input ends with one message and an exit code. It changes none
of the files it was given and leaves no incomplete files. A test makes each input of
these tables and checks the message. `…` stands for names and numbers of the case.

| exit code | meaning |
|---|---|
| 0 | the tool reports the problem and continues |
| 1 | the data has errors, or some files could not be predicted |
| 2 | the input is wrong |
| 3 | a run ended because its losses or gradients were repeatedly not finite |
| 5 | a run ended because another of its processes ended |
| 75 | a run was stopped by a signal, and saved |
| 130 | the tool was interrupted before anything was saved |

`CONVNEXT_DENSE_DEBUG=1` shows the Python stack as well.
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
