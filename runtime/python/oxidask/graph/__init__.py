"""The graph helper: turns one pickled expression into tasks.

A client sends a graph as a pickled ``dask._expr.Expr``. Only Python can unpickle it and only dask can materialise it,
so the scheduler keeps this process beside itself: it never runs users' code in its own.

==============  =====================================================================
``wire``        messages between the scheduler and this process
``serve``       the loop: one request at a time, until the scheduler goes away
``materialise`` expression to tasks, with the semantics of the stock scheduler
``culling``     dask's quadratic culling of many-layered graphs, in linear time
``tuning``      what dask's arrays spend their time on, faster
``maps``        ``Client.map`` without an object per item
``specs``       pickles of tasks that share what tasks share
``errors``      what went wrong, as the client expects it
``versions``    what is installed here, without importing it
==============  =====================================================================
"""
