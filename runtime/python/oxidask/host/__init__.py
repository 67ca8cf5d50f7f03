"""The host: a process of the scheduler's for what only Python can run.

==========  ===========================================================
module      what stands there
==========  ===========================================================
``link``    messages to and from the scheduler
``serve``   the process: operations and their answers
``events``  the scheduler's events, given to plugins in their order
``mirror``  ``dask_scheduler``: the scheduler as Python code knows it
``views``   its workers, tasks, groups and clients, read when touched
``remote``  which of its methods ask the scheduler, and which refuse
``shuffle`` specifications of peer-to-peer shuffles
==========  ===========================================================
"""
