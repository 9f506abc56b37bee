"""The parts of ``check.py``: the load, the judgement, the report and the plot."""
