"""A fuzzer: it gives mutated files to the package and watches what happens.

``python -m tests.fuzz --help`` describes the command. In one process at a time, forked
from one that has imported everything, a *case* (a few files) goes to a *target* (a
function of the package). Each case must return or raise an ``InputError``. A watchdog
reports everything else: other exceptions, crashes, hangs, memory, files written outside
the case's folder, processes, connections, code, and classes that have changed.

case        the files of a case, and how they are saved
mutations   change bytes, pickles, archives, JSON, images and Python text
targets     the files that are mutated, and the functions that read them
watchdog    what a case may not do, within a process
integrity   which classes and functions must stay as they are
workers     the processes, their limits, and what became of a case
campaign    many cases, their findings on disk, and the table at the end
coverage    unpickling and run lengths with atheris, which looks at branches
"""
