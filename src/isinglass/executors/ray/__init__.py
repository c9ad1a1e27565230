"""Runs on a Ray cluster: the only room that imports Ray, and only when it is used.

    the driver                                             a node
    submit  -- the request, and files by content -->       a Ray task: unpacks files that its cache lacks, runs a worker
    wait    <-- updates, through an actor --               whatever the worker sends
            <-- the answer and the files, as the task's value --
    the files are put in place, completely or not at all; the caller records the answer

A task whose node or process is lost is submitted again. Its run continues from its last checkpoint, which lies where all
nodes see it. Only the driver writes in the bench's directory. Nothing that arrives as a file is executed.
"""
