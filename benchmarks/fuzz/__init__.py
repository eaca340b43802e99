"""Bad inputs over all boundaries: none may end in a traceback, touch a file elsewhere, or hang.

`seeds` makes one valid input of each kind, `mutate` damages bytes and trees, `kinds` knows what is nasty to each kind and
what reads it, `harness` runs each case in a child process with a time limit and watches the files around it.
"""
