"""`dist-relu doctor`: will training work on this machine, or on these machines, and how fast could it be?

A check is a small function from facts to a `Finding`; `checks` has those of one machine, `survey` those of several.
"""
