"""The rules of an agent run: values in, values out.

No I/O, clock, randomness, threads or asyncio here: whatever is imported in this room could run
on paper.
"""
